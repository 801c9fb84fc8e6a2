"""The shipped sample images: what they are, where they came from, under which licence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from unibiomed_core.errors import ReadError
from unibiomed_core.files import read_json


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample.

    Args:
        path: The image.
        mask: The reference label map of the source, on the image's own grid.
        mask_labels: Label value -> structure, for the values that occur.
        split: "test" where it was held out from training the embedded model, else "train".
    """

    name: str
    title: str
    path: Path
    mask: Path
    mask_labels: Mapping[int, str]
    modality: str
    split: str
    licence: str
    citation: str
    origin: str
    sha256: str


def samples_folder() -> Path:
    """Inside the package when installed from a wheel, beside it in a checkout."""
    here = Path(__file__).resolve().parent
    return here / "sample_data" if (here / "sample_data").is_dir() else here.parent / "sample_data"


@cache
def samples() -> Mapping[str, Sample]:
    """All samples by name, in the order of the index.

    Raises:
        ReadError: The installation has no sample data.
    """
    folder = samples_folder()
    if not (folder / "index.json").is_file():
        raise ReadError("Samples not found", "this installation has no sample_data folder", "one", "Install again.")
    rows = read_json(folder / "index.json")["samples"]
    return MappingProxyType({row["name"]: _sample(folder, row) for row in rows})


def _sample(folder: Path, row: Mapping[str, Any]) -> Sample:
    as_told = ("name", "title", "modality", "split", "licence", "citation", "origin", "sha256")
    return Sample(
        path=folder / row["file"],
        mask=folder / row["mask"],
        mask_labels=MappingProxyType({int(value): name for value, name in row["mask_labels"].items()}),
        **{name: row[name] for name in as_told},
    )


def sample_path(name: str) -> Path:
    """The image of one sample.

    Raises:
        ReadError: There is none of that name.
    """
    if name not in samples():
        raise ReadError("Unknown sample", f"'{name}'", f"one of {', '.join(samples())}")
    return samples()[name].path
