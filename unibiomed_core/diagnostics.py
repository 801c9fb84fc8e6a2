"""What is installed and what it can do: versions, devices, models, and installations known to be broken."""

from __future__ import annotations

import importlib.util
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.resources import files
from pathlib import Path

from unibiomed_core import __version__
from unibiomed_core.errors import WeightsError
from unibiomed_core.files import read_json

PACKAGES = (
    "torch", "transformers", "tokenizers", "safetensors", "peft", "numpy", "scipy", "scikit-image",
    "SimpleITK", "nibabel", "pydicom", "napari", "PyQt6",
)  # fmt: skip

TORCHVISION_CURE = (
    "Run 'pip uninstall torchvision': nothing here needs it, and one that was built for another PyTorch keeps "
    "transformers from loading. With CUDA, the torchvision that matches your torch also does."
)


def versions() -> dict[str, str]:
    """Ours, Python's and each package's version; "not installed" where there is none. Imports none of them."""
    system = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    found = {"unibiomed": __version__, "python": system}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def devices() -> list[str]:
    """What the model can run on, each with its memory; imports torch.

    Raises:
        ImportError: torch is not installed, or broken.
    """
    import torch

    found = [f"cpu: {torch.get_num_threads()} threads"]
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(number)
            found.append(f"cuda:{number}: {facts.name}, {facts.total_memory / 2**30:.1f} GiB")
    if torch.backends.mps.is_available():
        found.append("mps: Apple GPU")
    return found


def torchvision_problem() -> str:
    """What importing torchvision fails with; empty where it works or is not installed.

    The import runs in a process of its own: a broken one can leave half-registered operators behind.
    """
    if importlib.util.find_spec("torchvision") is None:
        return ""
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import torchvision"], capture_output=True, text=True, timeout=120, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return "" if done.returncode == 0 else (lines[-1] if lines else f"exit code {done.returncode}")


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model as a list shows it.

    Args:
        size: Bytes on the disk in words, or roughly what a download fetches.
        folder: Where it is; None where it was not downloaded.
        targets: Modality -> names it was trained on; empty means free text.
    """

    name: str
    about: str
    size: str
    licence: str
    folder: Path | None
    targets: Mapping[str, Sequence[str]]


def models() -> list[ModelRow]:
    """The models inside the package and the known ones of the hub. Opens no socket and no weights."""
    from unibiomed_core.model import hub

    rows = []
    assets = Path(str(files("unibiomed_core.model") / "assets"))
    for config in sorted(assets.glob("*/config.json")):
        values = read_json(config)
        licence = values["facts"].get("licence", "not stated")
        folder = config.parent
        rows.append(ModelRow(folder.name, "inside the package", _size(folder), licence, folder, values["targets"]))
    for known in hub.KNOWN.values():
        try:
            here: Path | None = hub.cached(known.name)
        except WeightsError:
            here = None
        size = known.size if here is None else _size(here)
        rows.append(ModelRow(known.name, known.about, size, known.licence, here, {}))
    return rows


def _size(folder: Path) -> str:
    return f"{sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 1e6:,.1f} MB"
