"""The house: who imports whom, how long files may be, words that must not stand, and the README's tree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("unibiomed_core", "train", "napari_unibiomed")

TYPES = {"types", "updates", "errors", "modalities", "vocabulary", "tasks", "samples"}
NUMPY_LEVEL = TYPES | {"io", "measure", "report", "report_json", "report_text", "metrics"}
ALLOWED: dict[str, set[str]] = {
    **dict.fromkeys(TYPES, TYPES),
    **dict.fromkeys(NUMPY_LEVEL - TYPES, NUMPY_LEVEL),
    "model": TYPES | {"model"},
    "engine": (NUMPY_LEVEL - {"io"}) | {"model", "engine"},
}
"""Room of unibiomed_core -> rooms it may import; a room that is not named may import anything in the core."""

HEAVY = {"torch", "transformers", "peft", "accelerate", "napari", "qtpy"}
NO_TORCH = NUMPY_LEVEL
PLUGIN_MAY = TYPES | {"io", "engine", "report"}
LONGEST = 500
SIZES = {
    "types": 420, "errors": 120, "modalities": 270, "vocabulary": 180, "tasks": 360, "measure": 300, "cli": 450,
    "model/config": 320, "model/grounder": 300, "model/unibiomed": 450, "model/processor": 420, "model/weights": 450,
    "model/presets": 180, "engine/engine": 450, "engine/generate": 450, "engine/features": 240, "engine/volume": 480,
    "engine/linking": 360, "engine/devices": 240,
}  # fmt: skip
"""Lines: one and a half times what the design intends."""

FORBIDDEN = {
    r"\bTODO\b|\bFIXME\b|\bXXX\b": "left-over",
    r"trust_remote_code *= *True|torch\.load\(|import pickle|allow_pickle *= *True": "loads what it should not trust",
    r"(?<![\w.])eval\(|(?<![\w.])exec\(|except *:": "runs or hides what it should not",
    r"(^|[^A-Za-z.])/(wor[k]|roo[t]|hom[e])/[a-z.]": "a path of one machine",
}


def modules() -> list[Path]:
    return sorted(f for p in PACKAGES for f in (ROOT / p).rglob("*.py"))


def room(file: Path) -> str:
    """The part of a package a file belongs to: "engine" for unibiomed_core/engine/volume.py, "types" for types.py."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return parts[1] if len(parts) > 1 else parts[0]


def imports(file: Path) -> Iterator[tuple[str, bool]]:
    """(dotted name, at module level) of every import of a file; type-checking imports are left out."""
    tree = ast.parse(file.read_text("utf-8"))
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module, id(node) in top
            yield from ((f"{node.module}.{alias.name}", id(node) in top) for alias in node.names)


@pytest.mark.parametrize("file", modules(), ids=lambda f: str(f.relative_to(ROOT)))
def test_nobody_imports_against_the_arrows(file: Path) -> None:
    package, own = file.relative_to(ROOT).parts[0], room(file)
    for name, at_top in imports(file):
        parts = name.split(".")
        if package == "unibiomed_core":
            assert parts[0] not in {"train", "napari_unibiomed", "napari", "qtpy"}, f"{file} imports {name}"
            if parts[0] == "unibiomed_core" and len(parts) > 1 and own in ALLOWED:
                assert parts[1] in ALLOWED[own] | _names(), f"{own} may not import {name}"
            if own in NO_TORCH:
                assert parts[0] not in HEAVY, f"{own} may not import {name}"
        elif package == "train":
            assert parts[0] not in {"napari_unibiomed", "napari", "qtpy"}, f"{file} imports {name}"
        else:
            assert parts[0] != "train", f"{file} imports {name}"
            if parts[0] == "unibiomed_core" and len(parts) > 1:
                assert parts[1] in PLUGIN_MAY | _names(), f"the plugin may not import {name}"
            assert not (at_top and parts[0] in {"torch", "transformers", "SimpleITK", "sam2"}), (
                f"{name} at module level"
            )


def _names() -> set[str]:
    """Public names of the core, which are no rooms."""
    import unibiomed_core

    return set(unibiomed_core.__all__)


@pytest.mark.parametrize("file", modules(), ids=lambda f: str(f.relative_to(ROOT)))
def test_files_stay_readable(file: Path) -> None:
    key = str(file.relative_to(ROOT).with_suffix("")).removeprefix("unibiomed_core/")
    lines = len(file.read_text("utf-8").splitlines())
    assert lines <= SIZES.get(key, LONGEST), f"{file.name} has {lines} lines: make two files of it"


@pytest.mark.parametrize("file", modules(), ids=lambda f: str(f.relative_to(ROOT)))
def test_words_that_must_not_stand(file: Path) -> None:
    text = file.read_text("utf-8")
    for pattern, why in FORBIDDEN.items():
        found = re.search(pattern, text, re.MULTILINE)
        assert not found, f"{file.name}: '{found.group().strip()}' ({why})" if found else ""
    talks = file.name in {"cli.py", "terminal.py", "diagnostics.py"} or file.parts[-2] == "train"
    if not talks:
        assert not re.search(r"^\s*print\(", text, re.MULTILINE), f"{file.name} prints"


def test_readme_tree_names_every_file() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    blocks = re.findall(r"```\n(.*?)```", readme, re.DOTALL)
    tree = next((b for b in blocks if "unibiomed_core/" in b), "")
    listed, folders = set(), []
    for line in tree.splitlines():
        match = re.match(r"( *)([\w.-]+/?)(?:\s|$)", line)
        if not match:
            continue
        depth, name = len(match[1]) // 2, match[2]
        folders = folders[:depth]
        if name.endswith("/"):
            folders.append(name)
        elif name.endswith(".py"):
            listed.add("".join(folders) + name)
    there = {str(f.relative_to(ROOT)) for f in modules() if f.name != "__init__.py"}
    assert not there - listed, "missing in the README's tree:\n" + "\n".join(sorted(there - listed))
    assert not listed - there, "in the README's tree only:\n" + "\n".join(sorted(listed - there))


def test_readme_gives_exactly_two_commands() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    quick = readme.split("## Quick start", 1)[1].split("\n## ", 1)[0]
    assert re.findall(r"^make \w+", quick, re.MULTILINE) == ["make report", "make test"]


def test_importing_the_core_loads_nothing_heavy() -> None:
    code = (
        "import sys, unibiomed_core; from unibiomed_core import Volume, UniBiomedError, read;"
        "print([m for m in ('torch', 'transformers', 'napari', 'SimpleITK', 'nibabel') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
