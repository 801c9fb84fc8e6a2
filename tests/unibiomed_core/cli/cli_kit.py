"""What tests of the command line share: models with random weights, small images, and calls."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from unibiomed_core.cli import main

ROOT = Path(__file__).resolve().parents[3]
from tests.unibiomed_core.engine.toy import body, toy_engine  # noqa: E402


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with random weights that takes any target."""
    return _saved(tmp_path_factory.mktemp("models") / "toy")


@pytest.fixture(scope="session")
def picky_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with random weights that was "trained" on three targets."""
    return _saved(tmp_path_factory.mktemp("models") / "picky", targets={"ct": ("liver", "spleen", "pancreas")})


def _saved(folder: Path, **changes: Any) -> str:
    from unibiomed_core.model.weights import save

    engine = toy_engine(**changes)
    save(engine.model, engine.processor, folder, "float32")
    return str(folder)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ct.nii.gz`` (48 x 48 x 5, RAS, tilted), ``ct.png`` (56 x 40) and ``air.nii.gz`` (3 slices)."""
    folder = tmp_path_factory.mktemp("images")
    affine = np.array([[2.0, 0, 0, -40], [0, 1.9, -0.9, 3], [0, 0.5, 4.0, 7], [0, 0, 0, 1]])
    voxels = np.stack([body(48, seed) for seed in range(5)], axis=-1)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), folder / "ct.nii.gz")
    pixels = np.random.default_rng(3).integers(0, 255, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "ct.png")
    return folder


def call(*words: object) -> Result:
    return CliRunner().invoke(main.app, [str(word) for word in words])


def answer(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "answer.json").read_text("utf-8")))


def succeeded(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    assert "Traceback" not in result.output
    return result


def refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert result.stderr.startswith("Error: ")
    for word in words:
        assert re.search(word, result.stderr), f"'{word}' is not in:\n{result.stderr}"


def command_line(*words: object, before: str = "") -> subprocess.Popen[str]:
    """The command line in a process of its own.

    Args:
        before: Python that runs first, to hold the command where a test wants it; it may import what tests import.
    """
    return subprocess.Popen(
        [sys.executable, "-c", f"{before}\nfrom unibiomed_core.cli.main import main\nmain()", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
