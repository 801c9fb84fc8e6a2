"""JSON files of users and other tools: one reader, whatever they begin with, and one error that says where it ends."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors import SafetensorError

from unibiomed_core.errors import ReadError, UniBiomedError, WriteError

MOST_BYTES = 2 << 30
"""Size of a file that is read at all; the largest public annotation files have a quarter of it."""


def read_json(
    path: Path,
    wrong: type[UniBiomedError] = ReadError,
    title: str = "JSON cannot be read",
    expected: str = "a complete JSON file",
    most_bytes: int = MOST_BYTES,
) -> Any:
    """The content of a JSON file in UTF-8, UTF-16 or UTF-32, with a byte order mark or without.

    Args:
        wrong: The error that is raised.
        title: Its title.
        expected: What the file should be.
        most_bytes: A larger file is refused unread.

    Raises:
        UniBiomedError: Of the kind ``wrong``: the file is missing, no file, too large, in no Unicode encoding, or no
            JSON; the message names it with the line and column.
    """
    try:
        if not path.is_file():
            raise wrong(title, f"{path.name}: there is no such file", expected)
        if (size := path.stat().st_size) > most_bytes:
            raise wrong(title, f"{path.name} has {size:,} bytes", f"{expected} of at most {most_bytes:,}")
        return parse_json(path.read_bytes(), path.name, wrong, title, expected)
    except OSError as cause:
        raise wrong(title, f"{path.name}: {cause.strerror or cause}", expected) from cause


def parse_json(
    content: bytes,
    name: str,
    wrong: type[UniBiomedError] = ReadError,
    title: str = "JSON cannot be read",
    expected: str = "a complete JSON file",
) -> Any:
    """As :func:`read_json`, of bytes that are there already.

    Args:
        name: Of the file, for the message.
    """
    try:
        return json.loads(content.decode(json.detect_encoding(content)))
    except json.JSONDecodeError as cause:
        found = f"{name}, line {cause.lineno}, column {cause.colno}: {cause.msg}"
    except UnicodeDecodeError as cause:
        found = f"{name}: byte {cause.start} is no {cause.encoding} text"
    except RecursionError:
        found = f"{name}: it is nested too deeply"
    except ValueError as cause:  # a number of thousands of digits
        found = f"{name}: {cause}"
    raise wrong(title, found, expected)


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
def claimed(out_dir: Path | str) -> Iterator[None]:
    """Keep other processes and threads from writing several files into a folder, which need not exist yet.

    The claim is a lock of the operating system, which drops it when the process ends, killed or not. It stands in the
    temporary folder: nothing is left among the results. One thread may claim a folder again inside its own claim.

    Raises:
        WriteError: Somebody else writes into the folder now.
    """
    from filelock import FileLock, Timeout

    place = str(Path(out_dir).resolve())
    owner = os.getuid() if hasattr(os, "getuid") else 0
    name = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    lock = FileLock(Path(tempfile.gettempdir()) / f"unibiomed-{owner}-{name}.lock", is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise WriteError(
            "Folder in use",
            f"another report or answer is being written into {place}",
            "a folder that nobody else writes into",
            "Wait until it is done, or choose another output folder.",
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def staged(out_dir: Path | str, names: Iterable[str], *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder whose files ``names`` move into ``out_dir`` when the block ends without an error.

    ``out_dir`` is made where it does not exist. After an error nothing of this run is left, folders included. Files
    that belong together are never mixed with those of another writer: the folder is :func:`claimed` for several.

    Raises:
        WriteError: As :func:`check_free` and :func:`claimed`; or the system refused (full disk, no permission, ...).
    """
    names = tuple(names)
    with claimed(out_dir) if len(names) > 1 else nullcontext(), _staged(Path(out_dir), names, overwrite) as aside:
        yield aside


@contextmanager
def _staged(out_dir: Path, names: tuple[str, ...], overwrite: bool) -> Iterator[Path]:
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


@contextmanager
def replaced_file(file: Path) -> Iterator[Path]:
    """A path beside ``file`` for a new one, which takes its place when the block ends without an error.

    A process that is killed leaves the whole old file or the whole new one, and after an error nothing of the new one
    is left. Not synced: for what can be made again when a power cut takes it.

    Raises:
        OSError: The system refused; the caller knows what it means.
    """
    aside = file.with_name(file.name + ".new")
    try:
        yield aside
        os.replace(aside, file)
    except BaseException:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


@contextmanager
def replaced_folder(folder: Path, names: tuple[str, ...]) -> Iterator[Path]:
    """An empty folder that takes the place of ``folder`` when the block ends without an error.

    What was there is renamed aside, the new folder renamed in, and only then the old one deleted; where the second
    rename fails, the old one comes back. A kill between the two renames leaves the old one beside, whole, under a
    name that begins with a dot.

    Args:
        names: The files that the block writes. A folder that lacks the last of them, or holds anything else, is not
            replaced.

    Raises:
        WriteError: It holds something else, or the system refused; nothing was changed then.
    """
    try:
        present = {file.name for file in folder.iterdir()} if folder.exists() else set()
        if present and (names[-1] not in present or present - set(names)):
            strange = ", ".join(sorted(present - set(names))[:3]) or "an unfinished copy"
            raise WriteError(
                "Folder not empty",
                f"{folder} holds files that are not a model of this product ({strange})",
                "a new folder",
                "Choose another one.",
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as made:
            aside = Path(made) / "new"  # TemporaryDirectory itself is closed to the group, whatever the umask says
            aside.mkdir()
            yield aside
            for name in names:
                # safetensors makes its files private to the user; the others follow the umask.
                (aside / name).chmod(0o666 & (aside / names[-1]).stat().st_mode)
                with (aside / name).open("rb+") as handle:
                    os.fsync(handle.fileno())
            _swap(aside, folder, Path(f"{made}.old"))
    except (OSError, SafetensorError) as cause:
        raise WriteError(
            "Weights not written", f"{folder}: {cause}", "a folder with space that may be written"
        ) from cause


def _swap(new: Path, folder: Path, old: Path) -> None:
    """Rename ``new`` to ``folder``, whose former content is deleted last."""
    if not folder.exists():
        new.rename(folder)
        return
    folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def describe_file(file: Path) -> dict[str, Any]:
    """Size in bytes and SHA-256."""
    with file.open("rb") as handle:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(handle, "sha256").hexdigest()}
