"""The house: who imports whom, how long files may be, words that must not stand, and the README's tree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import unibiomed_core
from tests import house

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = house.PACKAGES

TYPES = {"types", "files", "updates", "errors", "modalities", "vocabulary", "phrases", "tasks", "samples"}
NUMPY_LEVEL = TYPES | {"io", "json_schema", "measure", "report", "metrics"}
ALLOWED: dict[str, set[str]] = {
    **dict.fromkeys(TYPES, TYPES),
    **dict.fromkeys(NUMPY_LEVEL - TYPES, NUMPY_LEVEL),
    "model": TYPES | {"model"},
    "engine": (NUMPY_LEVEL - {"io"}) | {"model", "engine"},
}
"""Room of unibiomed_core -> rooms it may import; a room that is not named may import anything in the core."""

PLUGIN_FLOORS = (
    {"settings", "jobs", "shortcuts", "messages"},
    {"canvas", "autosave", "reading", "writing"},
    {"runs", "findings"},
    {"session"},
    {"widgets"},
)
"""The plugin's rooms from the ground up. A room imports only from lower floors and from beside it; what menus call
(``commands``) stands on the roof and is imported by nobody."""

ROOF = {"commands"}

HEAVY = {"torch", "transformers", "peft", "accelerate"}
PLUGIN_MAY = TYPES | {"io", "engine", "report"}
"""Public submodules; besides them the plugin takes public names of unibiomed_core itself."""

LONGEST = 500
"""Lines of a file."""

MOST_ROOMS = 18
"""Things at the door of a folder; ``widgets`` and ``datasets``, lists of like things, may have more."""

UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN = {
    r"\bTODO\b|\bFIXME\b|\bXXX\b": "left-over",
    r"trust_remote_code *= *True|torch\.load\(|allow_pickle *= *True": "loads what it should not trust",
    r"(?<![\w.])eval\(|(?<![\w.])exec\(|except *:": "runs or hides what it should not",
}
MACHINE_PATHS = re.compile(r"(^|[^A-Za-z.\w-])/(work|root|home|opt|Users)/[a-zA-Z.]")
REGISTRIES = re.compile(r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|--(extra-)?index-url", re.IGNORECASE)


def modules() -> list[Path]:
    return sorted(f for p in PACKAGES for f in (ROOT / p).rglob("*.py"))


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).with_suffix("").as_posix()


def outside_functions(tree: ast.Module) -> set[int]:
    """Nodes that run when the module is imported, those in an if, try or class included."""
    found, waiting = set(), list[ast.AST](tree.body)
    while waiting:
        node = waiting.pop()
        found.add(id(node))
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    return found


def imports(text: str, module: str) -> Iterator[tuple[str, bool]]:
    """(dotted name, runs at import) of every import; those for type checkers alone are left out.

    Args:
        module: The file's own name with slashes and without ".py", to which relative imports are resolved.
    """
    tree = ast.parse(text)
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    top = outside_functions(tree)
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.split("/")[: -node.level] if node.level else []
            base = ".".join([*package, *([node.module] if node.module else [])])
            yield base, id(node) in top
            yield from ((f"{base}.{alias.name}", id(node) in top) for alias in node.names)


def core_room(name: str) -> str | None:
    """The room a dotted import reaches into; a public name of the core counts as the room it lives in."""
    parts = name.split(".")
    if parts[0] != "unibiomed_core" or len(parts) == 1 or parts[1].startswith("__"):
        return None
    home = unibiomed_core._HOME.get(parts[1])
    return home.split(".")[0] if home else parts[1]


def floor_of(room: str) -> int:
    """From 0; the roof is above all."""
    return next((number for number, floor in enumerate(PLUGIN_FLOORS) if room in floor), len(PLUGIN_FLOORS))


def plugin_room(name: str) -> str | None:
    """The room of the plugin that a dotted import reaches into."""
    parts = name.split(".")
    return parts[1] if parts[0] == "napari_unibiomed" and len(parts) > 1 and not parts[1].startswith("__") else None


def broken_arrow(name: str, at_import: bool, file: str) -> str | None:
    """Why an import is against the arrows, or None."""
    package, own, top = file.split("/")[0], file.split("/")[1], name.split(".")[0]
    if package != "napari_unibiomed" and top in {"napari_unibiomed", "napari", "qtpy", "PyQt6", "magicgui"}:
        return f"{file} is no part of the plugin and imports {name}"
    if package != "train" and top == "train":
        return f"{file} imports {name}"
    reached = core_room(name)
    if package == "unibiomed_core":
        if reached and own in ALLOWED and reached not in ALLOWED[own]:
            return f"{file}: {own} may not import {name}"
        if own in NUMPY_LEVEL and top in HEAVY:
            return f"{file}: {own} stays without {name}"
    if package == "napari_unibiomed":
        public = name.split(".")[1:2] and name.split(".")[1] in unibiomed_core.__all__
        if reached and not public and reached not in PLUGIN_MAY:
            return f"{file}: the plugin may not import {name}"
        if (entered := plugin_room(name)) and floor_of(entered) > floor_of(own):
            return f"{file}: {own} may not import {name}, which stands above it"
        if at_import and top in {"torch", "transformers", "SimpleITK", "sam2"}:
            return f"{file}: opening the dock would wait for {name}"
    return None


@pytest.mark.parametrize("file", modules(), ids=name_of)
def test_nobody_imports_against_the_arrows(file: Path) -> None:
    found = imports(file.read_text("utf-8"), name_of(file))
    wrong = [why for name, at_import in found if (why := broken_arrow(name, at_import, name_of(file)))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("unibiomed_core/types", "import torch"),
        ("unibiomed_core/types", "from unibiomed_core import Engine"),
        ("unibiomed_core/measure", "def f():\n    from unibiomed_core.engine import linking"),
        ("unibiomed_core/report", "from .engine.engine import Engine"),
        ("unibiomed_core/engine/volume", "from unibiomed_core.io import read"),
        ("unibiomed_core/engine/volume", "from ..io import read"),
        ("unibiomed_core/model/config", "from unibiomed_core import report"),
        ("unibiomed_core/cli", "import train.run"),
        ("unibiomed_core/engine/engine", "import napari"),
        ("train/loop", "from napari_unibiomed import dock"),
        ("napari_unibiomed/dock", "from unibiomed_core.model.weights import load"),
        ("napari_unibiomed/dock", "try:\n    import torch\nexcept ImportError:\n    pass"),
        ("napari_unibiomed/dock", "from train import run"),
    ],
)
def test_the_arrow_check_sees_wrong_imports(file: str, line: str) -> None:
    assert any(broken_arrow(name, at_import, file) for name, at_import in imports(line, file))


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("unibiomed_core/engine/volume", "import torch\nfrom unibiomed_core.model.unibiomed import UniBiomed"),
        ("unibiomed_core/io/nifti", "import nibabel\nfrom unibiomed_core import Volume"),
        ("napari_unibiomed/dock", "from unibiomed_core import Engine, read\ndef f():\n    import torch"),
        ("train/loop", "import torch\nfrom unibiomed_core.model import weights"),
    ],
)
def test_the_arrow_check_lets_right_imports_pass(file: str, line: str) -> None:
    assert not [why for name, at_import in imports(line, file) if (why := broken_arrow(name, at_import, file))]


@pytest.mark.parametrize("file", modules(), ids=name_of)
def test_files_stay_readable(file: Path) -> None:
    lines = len(file.read_text("utf-8").splitlines())
    assert lines <= LONGEST, f"{name_of(file)}.py has {lines} lines, {LONGEST} are the limit: make two files of it"


@pytest.mark.parametrize("file", modules(), ids=name_of)
def test_words_that_must_not_stand(file: Path) -> None:
    text = file.read_text("utf-8")
    for pattern, why in FORBIDDEN.items():
        found = re.search(pattern, text, re.MULTILINE)
        assert not found, f"{name_of(file)}.py: '{found.group().strip()}' ({why})" if found else ""
    unsafe = {n.split(".")[0] for n, _ in imports(text, name_of(file))} & UNSAFE_MODULES
    assert not unsafe, f"{name_of(file)}.py imports {unsafe}"
    calls = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    prints = [n.lineno for n in calls if isinstance(n.func, ast.Name) and n.func.id == "print"]
    assert not prints or name_of(file) in {"train/run", "train/evaluate"}, f"{name_of(file)}.py prints: lines {prints}"


def texts() -> list[Path]:
    """Everything people wrote in this repository, this file left out: it holds the patterns themselves."""
    folders = (*PACKAGES, "tests", "benchmarks", "sample_data", "docs", ".ci")
    inside = [f for folder in folders for f in (ROOT / folder).rglob("*")]
    files = [
        f for f in [*ROOT.glob("*"), *inside] if f.suffix in {".py", ".md", ".toml", ".txt", ".cff", ".yaml", ".j2"}
    ]
    return sorted({*files, ROOT / "Makefile", ROOT / ".ci" / "run", ROOT / "NOTICE"} - {Path(__file__).resolve()})


@pytest.mark.parametrize("file", texts(), ids=lambda f: f.relative_to(ROOT).as_posix())
def test_no_text_names_a_machine_or_a_registry(file: Path) -> None:
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        found = MACHINE_PATHS.search(line) or REGISTRIES.search(line)
        assert not found, f"{file.name}:{number}: {found.group()!r}" if found else ""


def folders_in(readme: str) -> dict[str, str]:
    """Folder -> half-line, from the README's tree."""
    blocks = re.findall(r"```\w*\n(.*?)```", readme, re.DOTALL)
    tree = next((b for b in blocks if "unibiomed_core/" in b and "napari_unibiomed/" in b), "")
    listed: dict[str, str] = {}
    above: list[str] = []
    for line in tree.splitlines():
        match = re.match(r"( *)([\w.-]+/) +(.*)$", line)
        if match:
            above = [*above[: len(match[1]) // 2], match[2]]
            listed["".join(above).rstrip("/")] = match[3]
    return listed


def test_readme_tree_names_every_folder() -> None:
    listed = folders_in((ROOT / "README.md").read_text("utf-8"))
    there = {name.replace(".", "/") for name in house.folders()}
    assert not there - listed.keys(), "missing in the README's tree"
    gone = [name for name in listed if not (ROOT / name).is_dir()]
    assert not gone, f"in the README's tree only: {gone}"
    assert not [name for name, words in listed.items() if len(words) < 8]


def test_every_folder_says_what_it_is_for() -> None:
    files = [file for file in house.modules().values() if file.name == "__init__.py"]
    assert not [name_of(f) for f in files if not ast.get_docstring(ast.parse(f.read_text("utf-8")))]


def test_steps_for_the_command_line_are_told_apart() -> None:
    """A window leaves ``command`` out, so that no step for the command line may stand among the other words."""
    calls = [
        (name_of(file), call)
        for file in modules()
        if not file.is_relative_to(ROOT / "train")  # all of training is for the command line
        for call in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id.endswith("Error")
    ]
    said = [(name, ast.unparse(argument)) for name, call in calls for argument in call.args]
    assert len(said) > 300
    assert not [found for found in said if re.search(r"unibiomed [a-z]|--[a-z]", found[1])]


SAID = {"title", "found", "expected", "action", "meaning", "narrative"}
"""Attributes that hold our own English."""


def reads_words(code: str) -> list[str]:
    """Where code acts on words that were made for people: compares, searches or cuts them."""
    found = []
    for node in ast.walk(ast.parse(code)):
        operands: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            cuts = {"startswith", "partition", "removeprefix"}
            operands = [node.func.value] if node.func.attr in cuts else []
            operands += node.args if ast.unparse(node.func).startswith("re.") else []
        if any(isinstance(operand, ast.Attribute) and operand.attr in SAID for operand in operands):
            found.append(ast.unparse(node))
    return found


def test_no_module_reads_our_own_english_back() -> None:
    renames = {"run.title", "layer.name"}  # a run's title is the name of its layer
    read = {found for file in modules() for found in reads_words(file.read_text("utf-8"))}
    assert not [found for found in read if not any(name in found for name in renames)]


@pytest.mark.parametrize(
    "code",
    [
        "error.title == 'Weights not found'",
        "'offline' in error.found",
        "error.title.startswith('Weights')",
        "re.search('a', error.found)",
        "report.narrative.partition(':')",
    ],
)
def test_reading_our_own_english_back_is_seen(code: str) -> None:
    assert reads_words(code) == [code]


def test_nobody_imports_in_a_circle() -> None:
    assert house.circles(house.graph(typed=True)) == []


def test_circles_are_seen() -> None:
    assert house.circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
    assert house.circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("place", house.folders())
def test_folders_have_floors_and_few_rooms(place: str) -> None:
    plan = house.rooms(place, house.graph(typed=False))
    assert plan.keys() == house.floors(plan).keys(), "rooms of a folder import one another in a loop"
    if place.rpartition(".")[2] not in {"widgets", "datasets"}:
        assert len(plan) <= MOST_ROOMS, sorted(plan)


def test_the_plugin_is_not_high() -> None:
    plan = house.rooms("napari_unibiomed", house.graph(typed=False))
    known = set().union(*PLUGIN_FLOORS) | ROOF
    assert plan.keys() == known, "every room of the plugin stands on a floor"
    assert max(house.floors(plan).values()) <= 6


def test_one_class_name_has_one_meaning() -> None:
    assert not [name for name, count in house.public_classes().items() if count > 1]


def test_test_files_have_names_of_their_own() -> None:
    """Two of one name stop pytest before its first test, though each runs alone."""
    names = Counter(f.name for f in (ROOT / "tests").rglob("test_*.py"))
    assert not [name for name, count in names.items() if count > 1]


def test_readme_gives_exactly_two_commands() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    quick = readme.split("## Quick start", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"```\w*\n(.*?)```", quick, re.DOTALL)
    assert [line for block in blocks for line in block.splitlines()] == ["make report", "make test"]


def test_readme_links_lead_somewhere() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", readme) if "://" not in link]
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_importing_the_core_loads_nothing_heavy() -> None:
    code = (
        "import sys, unibiomed_core; from unibiomed_core import Volume, UniBiomedError, read;"
        "print([m for m in ('torch', 'transformers', 'napari', 'SimpleITK', 'nibabel') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_public_names_exist() -> None:
    assert all(getattr(unibiomed_core, name) is not None for name in unibiomed_core.__all__)
    with pytest.raises(AttributeError, match="no attribute"):
        _ = unibiomed_core.Segmenter
