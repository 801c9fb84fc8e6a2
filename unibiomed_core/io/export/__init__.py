"""Writing results: one file a format here, and the table of what a report consists of.

All files of a run are written aside and moved into place together (``atomic.staged``), so that a full disk leaves
what was there before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from unibiomed_core.errors import WriteError
from unibiomed_core.files import check_free, claimed, staged

if TYPE_CHECKING:
    from unibiomed_core.modalities import Window
    from unibiomed_core.types import Report, Volume

__all__ = ["FORMATS", "REPORT_FILES", "check_free", "claimed", "report_names", "staged", "write", "write_report"]

Writer = Callable[["Report", "Volume", "Window | None", Path], None]


def _json(report: Report, volume: Volume, window: Window | None, path: Path) -> None:
    from unibiomed_core.io.export.json_file import dump
    from unibiomed_core.report import to_json

    dump(to_json(report), path)


def _html(report: Report, volume: Volume, window: Window | None, path: Path) -> None:
    from unibiomed_core.io.export.html import render

    path.write_text(render(report, volume, window), encoding="utf-8")


def _nifti(report: Report, volume: Volume, window: Window | None, path: Path) -> None:
    from unibiomed_core.io.export.nifti import write_labels
    from unibiomed_core.report import labels

    write_labels(labels(report, volume), volume, path)


def _png(report: Report, volume: Volume, window: Window | None, path: Path) -> None:
    from unibiomed_core.io.export.png import write_labels
    from unibiomed_core.report import labels

    write_labels(labels(report, volume)[0], path)


def _label_table(report: Report, volume: Volume, window: Window | None, path: Path) -> None:
    from unibiomed_core.io.export.json_file import dump, label_table

    dump(label_table(report), path)


def _csv(report: Report, volume: Volume, window: Window | None, path: Path) -> None:
    from unibiomed_core.io.export.csv import write_findings

    write_findings(report, path)


FORMATS: Mapping[str, Writer] = MappingProxyType(
    {
        ".json": _json,
        ".html": _html,
        ".nii.gz": _nifti,
        ".nii": _nifti,
        ".png": _png,
        ".csv": _csv,
    }
)
"""Suffix -> writer of one file."""

REPORT_FILES: Mapping[str, Writer] = MappingProxyType(
    {
        "report.json": _json,
        "report.html": _html,
        "findings.nii.gz": _nifti,
        "findings.png": _png,
        "labels.json": _label_table,
        "findings.csv": _csv,
    }
)
"""File name -> writer, for a whole run. A picture gets ``findings.png``, a volume ``findings.nii.gz``."""


def write(report: Report, volume: Volume, window: Window | None, path: Path | str, *, overwrite: bool = False) -> Path:
    """Write a report as one file, in the format of the file name's suffix (``FORMATS``).

    Args:
        volume: The image the report is about.
        window: The intensity window the model was given.

    Raises:
        WriteError: The suffix is unknown or does not fit the image, the file exists and ``overwrite`` is False, or
            it cannot be written.
    """
    path = Path(path)
    unfit = _nifti if volume.is_2d else _png
    fitting = {suffix: writer for suffix, writer in FORMATS.items() if writer is not unfit}
    writer = next((fitting[suffix] for suffix in fitting if path.name.lower().endswith(suffix)), None)
    if writer is None:
        raise WriteError(
            "Unknown output format",
            f"a {'picture' if volume.is_2d else 'volume'} cannot be written as '{path.name}'",
            f"one of {' '.join(fitting)}",
            "Choose another file name.",
        )
    with staged(path.parent, [path.name], overwrite=overwrite) as folder:
        writer(report, volume, window, folder / path.name)
    return path


def report_names(volume: Volume) -> tuple[str, ...]:
    """The files that :func:`write_report` writes for an image."""
    other = "findings.nii.gz" if volume.is_2d else "findings.png"
    return tuple(name for name in REPORT_FILES if name != other)


def write_report(
    report: Report, volume: Volume, window: Window | None, out_dir: Path | str, *, overwrite: bool = False
) -> list[Path]:
    """Write a report's files into a folder, which is made where it does not exist; all of them or none.

    Args:
        volume: The image the report is about.
        window: The intensity window the model was given.
        overwrite: Replace files of the same names; others in the folder are never touched.

    Returns:
        The files written.

    Raises:
        WriteError: A file of these names exists, or the folder cannot be written.
    """
    names = report_names(volume)
    with staged(out_dir, names, overwrite=overwrite) as folder:
        for name in names:
            REPORT_FILES[name](report, volume, window, folder / name)
    return [Path(out_dir) / name for name in names]
