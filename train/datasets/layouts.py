"""The folder layouts that are read, and which of them a folder is in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from unibiomed_core.errors import DataError

from ..data.records import Record
from .request import ConversionRequest, Summary

_SHOWN = 12
"""Entries of a folder that an error lists."""


@dataclass(frozen=True)
class Layout:
    """One layout; its module is loaded when it is asked for.

    Args:
        module: Of this package, with ``fits(source)`` and ``convert(job, summary)``.
        about: What is in the folder, for people.
    """

    module: str
    about: str

    def fits(self, source: Path) -> bool:
        """Whether the folder has what this layout needs; no picture is decoded."""
        return bool(import_module(f".{self.module}", __package__).fits(source))

    def why_not(self, source: Path) -> str:
        """What of this layout is in a folder that it does not fit, for a message; empty where nothing is or it cannot
        tell."""
        tell = getattr(import_module(f".{self.module}", __package__), "why_not", None)
        return str(tell(source)) if tell else ""

    def convert(self, job: ConversionRequest, summary: Summary) -> Iterator[Record]:
        """Records of the folder, see ``job.Converter``.

        Raises:
            DataError: The folder is not in this layout.
        """
        yield from import_module(f".{self.module}", __package__).convert(job, summary)


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "shared": Layout("shared_layout", "dataset.json with items, or folders with one each"),
        "published-2d": Layout("published_2d", "UniBiomed's 2D annotations as JSON, with pictures and masks"),
        "published-3d": Layout("published_3d", "meta_train.json, meta_test.json and the slices of volumes"),
        "radgenome": Layout("radgenome", "RadGenome: reports of chest CT with regions as JSON"),
        "medtrinity": Layout("medtrinity", "MedTrinity: captions with boxes as JSON"),
        "coco": Layout("coco", "COCO JSON with images, annotations and categories"),
        "case-folders": Layout("case_folders", "one folder a case, or images/ and labels/, of NIfTI volumes"),
        "nnunet": Layout("nnunet", "nnU-Net or Medical Segmentation Decathlon: imagesTr/, labelsTr/, dataset.json"),
        "image-text": Layout("image_text", "JSON or CSV that names pictures with questions, captions or reports"),
        "image-masks": Layout("image_masks", "images/ and masks/ of pictures, or a.png beside a_mask.png"),
    }
)
"""Name -> layout. :func:`detect` takes the first that fits, so those that are told by more come first."""


def detect(source: Path) -> str:
    """The layout of a folder.

    Raises:
        DataError: There is no such folder, or it is in none of the layouts.
    """
    if not source.is_dir():
        raise DataError("Data folder not found", f"there is no folder {source}", "the folder of the data set")
    for name, layout in LAYOUTS.items():
        if layout.fits(source):
            return name
    near = {name: why for name, layout in LAYOUTS.items() if (why := layout.why_not(source))}
    if near:
        raise DataError(
            "Unknown data layout",
            f"'{source.name}' is nearly in:" + "".join(f"\n  {name}: {why}" for name, why in near.items()) + "\n",
            "names, columns or files that fit one of them",
        )
    raise DataError(
        "Unknown data layout",
        f"'{source.name}' holds {_listing(source)}",
        "one of these:" + "".join(f"\n  {name}: {layout.about}" for name, layout in LAYOUTS.items()) + "\n",
        "Give the layout's name if the folder is in one of them.",
    )


def _listing(source: Path) -> str:
    names = sorted(f"{p.name}/" if p.is_dir() else p.name for p in source.iterdir())
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) or "nothing") + more
