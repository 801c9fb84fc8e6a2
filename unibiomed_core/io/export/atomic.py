"""Files that appear whole or not at all: written aside, synced to the disk, renamed."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unibiomed_core.errors import WriteError


def check_free(out_dir: Path | str, names: Iterable[str], *, overwrite: bool = False) -> None:
    """Check, before any work, that files may be written.

    Raises:
        WriteError: ``out_dir`` is a file, or one of ``names`` exists in it and ``overwrite`` is False.
    """
    out_dir = Path(out_dir)
    if out_dir.exists() and not out_dir.is_dir():
        raise WriteError("Output is not a folder", f"{out_dir} is a file", "a folder", "Choose another output folder.")
    taken = [name for name in names if os.path.lexists(out_dir / name)]
    if taken and not overwrite:
        raise WriteError(
            "Files exist already",
            f"{out_dir} holds {', '.join(taken)}",
            "a folder without files of these names",
            "Choose another output folder, or allow overwriting.",
        )


@contextmanager
def staged(out_dir: Path | str, names: Iterable[str], *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder whose files ``names`` move into ``out_dir`` when the block ends without an error.

    ``out_dir`` is made where it does not exist. After an error nothing of this run is left, folders included.

    Raises:
        WriteError: As :func:`check_free`; or the system refused (full disk, no permission, ...).
    """
    out_dir, names = Path(out_dir), tuple(names)
    made: list[Path] = []  # folders of ours, outermost first
    aside: Path | None = None
    try:
        check_free(out_dir, names, overwrite=overwrite)
        missing = [p for p in (out_dir, *out_dir.parents) if not p.exists()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            made.append(folder)
        aside = Path(tempfile.mkdtemp(prefix=".unibiomed-", dir=out_dir))
        yield aside
        for name in names:
            _sync(aside / name)
        _move(aside, out_dir, names)
        made = []
    except OSError as error:
        raise _write_error(error, out_dir) from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
        for folder in reversed(made):
            with suppress(OSError):  # somebody else put something into it meanwhile
                folder.rmdir()


def _move(aside: Path, out_dir: Path, names: tuple[str, ...]) -> None:
    """Rename all files into place; where one rename fails, what was replaced comes back."""
    done: list[str] = []
    try:
        for name in names:
            with suppress(FileNotFoundError):
                os.replace(out_dir / name, aside / f"{name}.before")
            done.append(name)
            os.replace(aside / name, out_dir / name)
    except OSError:
        for name in done:
            if (aside / f"{name}.before").exists():
                os.replace(aside / f"{name}.before", out_dir / name)
            elif not (aside / name).exists():
                (out_dir / name).unlink(missing_ok=True)
        raise


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _write_error(error: OSError, out_dir: Path) -> WriteError:
    """What the system said, in words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WriteError(
            "Disk full", f"no space is left for {out_dir}", "free space", "Free some space or choose another folder."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return WriteError(
            "Folder cannot be written",
            f"{out_dir} is read-only or belongs to somebody else",
            "a folder you may write to",
            "Choose another output folder.",
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return WriteError(
            "Output is not a folder", f"a part of {out_dir} is a file", "a folder", "Choose another output folder."
        )
    return WriteError(
        "Result cannot be written",
        f"{out_dir}: {error.strerror or type(error).__name__}",
        "a folder that can be written",
        "Choose another output folder.",
    )
