"""Figures on disk, drawn without a screen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from unibiomed_core.errors import WriteError
from unibiomed_core.files import replaced_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_figure(figure: Figure, path: Path, dpi: int = 110) -> Path:
    """Write a PNG aside and rename it, so that a viewer never meets half a picture.

    Raises:
        WriteError: The disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_file(path) as aside:
            figure.savefig(aside, format="png", dpi=dpi)
    except OSError as cause:
        raise WriteError("Picture not written", f"{path}: {cause}", "a folder with space") from cause
    return path
