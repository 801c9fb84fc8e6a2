"""Which file of a data folder an annotation means, where its name is spelt another way than the disk spells it.

A name is taken as it stands wherever such a file is there. Else it is read as Windows, a browser, another machine or
another file system would have written it, and the summary says so. Nothing outside the data folder is ever found.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote

from unibiomed_core.errors import DataError

from .request import Summary

_DRIVE = re.compile(r"[A-Za-z]:/|//")
"""What an absolute Windows path begins with once its backslashes are turned."""

Key = TypeVar("Key", bound=Hashable)

_SHOWN = 3
"""Candidates that an error names."""


def folded(name: str) -> str:
    """A name without what file systems disagree on: letter case, composed or decomposed accents, outer spaces."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip()


def respelt(names: Iterable[Key], known: Iterable[Key], loose: Callable[[Key], Hashable]) -> dict[Key, Key]:
    """Each name that ``known`` lacks -> the one that is alike under ``loose``, where there is one on either side.

    Args:
        loose: What spellings of one name have in common.
    """
    mine, theirs = set(names), set(known)
    alike: dict[Hashable, tuple[list[Key], list[Key]]] = {}
    for side, own in enumerate((mine - theirs, theirs - mine)):
        for name in own:
            alike.setdefault(loose(name), ([], []))[side].append(name)
    return {here[0]: there[0] for here, there in alike.values() if len(here) == len(there) == 1}


class Names:
    """Looks up files below one data folder; a folder is listed once, and only where a name is not there as it stands.

    Args:
        source: The data folder.
        summary: Gets a note for every file that was found under another spelling; None where nobody listens.
    """

    def __init__(self, source: Path, summary: Summary | None = None) -> None:
        self.summary = summary
        self._source = source
        self._entries: dict[Path, dict[str, list[str]]] = {}
        self._everywhere: dict[str, list[Path]] | None = None

    def find(self, name: Any, folders: Sequence[Path], what: str = "picture") -> Path:
        """The file or folder that ``name`` means: in the first of ``folders`` that has it as it stands, else in the
        only one that has it under another spelling.

        Args:
            name: As an annotation writes it: relative to one of ``folders``, or absolute on some machine.
            folders: Below the source, most likely first.
            what: What is looked for, for the message.

        Raises:
            DataError: The name is no text or leaves the data folder, there is no such file, or two could be meant.
        """
        file = self.look(name, folders, what)
        if file is None:
            places = ", ".join(dict.fromkeys(self._shown(f) for f in folders if f.is_dir()))
            raise DataError(f"Missing {what}", f"there is no {name} in {places or self._shown(folders[0])}", "a file")
        return file

    def look(self, name: Any, folders: Sequence[Path], what: str = "picture") -> Path | None:
        """As :meth:`find`, and None where there is no such file.

        Raises:
            DataError: The name is no text or leaves the data folder, or two files could be meant.
        """
        spellings = self._spellings(name)
        if Path(name).is_relative_to(self._source.absolute()) and _exists(Path(name)):
            return self._source / Path(name).relative_to(self._source.absolute())
        for folder in folders:
            if not _is_absolute(name) and _exists(folder / name):
                return folder / name
        for code, spelling in spellings:
            found: set[Path] = set()
            for parts in _ends(spelling):
                found = {file for folder in folders for file in self._alike(folder, parts)}
                if found:
                    break
            if found:
                return self._only(found, name, code, what)
        return None

    def anywhere(self, name: Any, endings: tuple[str, ...], what: str = "picture") -> Path | None:
        """The only file of one of the ``endings`` below the source whose path ends with ``name``, None for none.

        Raises:
            DataError: The name is no text or leaves the data folder, or two files could be meant.
        """
        if self._everywhere is None:
            self._everywhere = {}
            for file in sorted(self._source.rglob("*")):
                if file.name.lower().endswith(endings):
                    self._everywhere.setdefault(folded(file.name), []).append(file)
        for code, spelling in self._spellings(name):
            for parts in _ends(spelling):
                wanted = [folded(part) for part in parts]
                known = self._everywhere.get(wanted[-1], ()) if wanted else ()
                found = {f for f in known if [folded(p) for p in f.parts[-len(wanted) :]] == wanted}
                exact = {f for f in found if f.parts[-len(parts) :] == parts}
                if found:
                    return self._only(exact or found, name, code, what)
        return None

    def _spellings(self, name: Any) -> list[tuple[str, str]]:
        """(note, path with slashes) for each way to read a name; "" where the difference follows from what is found.

        Raises:
            DataError: It is no text, is empty, or climbs out of the folder in one of them.
        """
        if isinstance(name, str) and name.strip() and "\0" not in name:
            found = list(_readings(name))
            if not any(".." in PurePosixPath(spelling).parts for _, spelling in found):
                return found
        raise DataError(
            "File name not usable", f"{name!r} below {self._source.name}", "a relative path inside the folder"
        )

    def _alike(self, folder: Path, parts: Sequence[str]) -> list[Path]:
        """Every path below a folder that differs from ``parts`` in spelling alone; the one without difference alone."""
        if _exists(exact := folder.joinpath(*parts)):
            return [exact]
        found = [folder]
        for part in parts:
            found = [path / entry for path in found for entry in self._listed(path).get(folded(part), ())]
        return found

    def _listed(self, folder: Path) -> dict[str, list[str]]:
        """Folded name -> entries of a folder."""
        if folder not in self._entries:
            entries: dict[str, list[str]] = {}
            for entry in sorted(os.listdir(folder)) if folder.is_dir() else ():
                entries.setdefault(folded(entry), []).append(entry)
            self._entries[folder] = entries
        return self._entries[folder]

    def _only(self, found: set[Path], name: str, code: str, what: str) -> Path:
        if len(found) > 1:
            shown = ", ".join(sorted(self._shown(f) for f in found)[:_SHOWN])
            raise DataError(f"Ambiguous {what}", f"{len(found)} files are called {name}: {shown}", "one of this name")
        (file,) = found
        if self.summary is not None and (code := code or _difference(name, file)):
            self.summary.note(code, f"{name} is {self._shown(file)}")
        return file

    def _shown(self, file: Path) -> str:
        shown = file.relative_to(self._source).as_posix() if file.is_relative_to(self._source) else file.name
        return self._source.name if shown == "." else shown


def _readings(name: str) -> Iterator[tuple[str, str]]:
    """(note, path with slashes), the likeliest first."""
    turned = name.replace("\\", "/")
    code = "name_absolute" if _is_absolute(turned) else "name_backslash" if turned != name else ""
    yield code, turned
    if (plain := unquote(turned)) != turned:
        yield "name_percent", plain.replace("\\", "/")


def _is_absolute(name: str) -> bool:
    return name.startswith("/") or bool(_DRIVE.match(name))


def _ends(spelling: str) -> Iterator[tuple[str, ...]]:
    """The parts of a relative path; of one that is absolute on some machine every end, the longest first."""
    parts = PurePosixPath(spelling).parts
    if not _is_absolute(spelling):
        yield parts
    else:
        yield from (parts[start:] for start in range(1, len(parts)))


def _difference(name: str, file: Path) -> str:
    """Which note tells what sets a relative name apart from the file that was found under it; "" for nothing."""
    wanted, there = PurePosixPath(name).as_posix(), file.as_posix()
    if there.endswith(wanted):
        return ""
    composed = (unicodedata.normalize("NFC", text) for text in (there, wanted))
    return "name_unicode" if next(composed).endswith(next(composed)) else "name_letter_case"


def _exists(file: Path) -> bool:
    try:
        return file.exists()
    except OSError:  # longer than the file system takes
        return False
