"""The plan of the house, measured from its imports: ``python tests/house.py`` prints folders, floors and circles.

A room is a file or a folder at the door of a package or of one of its folders. A room stands one floor above the
highest room that it imports, deferred imports included; imports for type checkers alone count for circles, not for
floors. Packages' ``__init__.py`` only hand names on and are passed through.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("unibiomed_core", "napari_unibiomed", "train")

Graph = Mapping[str, set[str]]
"""Dotted module -> modules that it imports."""


def modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name; a folder's ``__init__`` has the folder's name."""
    files = sorted(f for package in PACKAGES for f in (ROOT / package).rglob("*.py"))
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def imported(text: str, module: str, package: bool = False) -> Iterator[tuple[str, bool]]:
    """(dotted name, for type checkers alone) of every import of a text.

    Args:
        module: The text's own dotted name, to which relative imports are resolved.
        package: The text is a folder's ``__init__``.
    """
    tree = ast.parse(text)
    typed = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    here = module.split(".") if package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in typed) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = here[: len(here) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield from ((f"{base}.{alias.name}", id(node) in typed) for alias in node.names)


def graph(*, typed: bool) -> Graph:
    """Which module imports which; a name that a folder's ``__init__`` hands on counts as the module it lives in.

    Args:
        typed: Count what only type checkers import.
    """
    files = modules()
    homes = {name: dict(_handed_on(name, file, files)) for name, file in files.items() if file.name == "__init__.py"}
    arrows: dict[str, set[str]] = {}
    for name, file in files.items():
        if file.name == "__init__.py":
            continue
        reached = (
            _home(target, files, homes) for target, only in imported(file.read_text("utf-8"), name) if typed or not only
        )
        arrows[name] = {target for target in reached if target and target != name}
    return arrows


def _handed_on(name: str, file: Path, files: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    for target, _ in imported(file.read_text("utf-8"), name, package=True):
        module, _, public = target.rpartition(".")
        if module in files:
            yield public, module


def _home(target: str, files: Mapping[str, Path], homes: Mapping[str, Mapping[str, str]]) -> str | None:
    """The module that an imported name lives in; None for other packages and for names of a face that is lazy."""
    module, _, name = target.rpartition(".")
    if module in homes and name in homes[module]:
        return homes[module][name]
    for candidate in (target, module):
        if candidate in files and files[candidate].name != "__init__.py":
            return candidate
    return None


def circles(arrows: Graph) -> list[list[str]]:
    """Groups of modules that import one another in a loop (Tarjan's strongly connected components)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        stack.append(module)
        for target in arrows.get(module, ()):
            if target not in number:
                visit(target)
            if target in stack:
                lowest[module] = min(lowest[module], lowest[target])
        if lowest[module] == number[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in sorted(arrows):
        if module not in number:
            visit(module)
    return found


def rooms(place: str, arrows: Graph) -> Graph:
    """The rooms at the door of a package or folder, and which of them imports which."""
    depth = place.count(".") + 1

    def room(module: str) -> str | None:
        parts = module.split(".")
        return parts[depth] if module.startswith(f"{place}.") else None

    plan: dict[str, set[str]] = defaultdict(set)
    for module, targets in arrows.items():
        own = room(module)
        if own is not None:
            plan[own] |= {other for target in targets if (other := room(target)) is not None and other != own}
    return plan


def floors(plan: Graph) -> dict[str, int]:
    """Room -> floor, from 1. Rooms in a circle have no floor and are left out, with all above them."""
    found: dict[str, int] = {}
    while ready := [r for r, below in plan.items() if r not in found and below <= found.keys()]:
        found |= {room: 1 + max((found[b] for b in plan[room]), default=0) for room in ready}
    return found


def folders() -> list[str]:
    """Every package and folder, dotted."""
    return sorted(name for name, file in modules().items() if file.name == "__init__.py")


def public_classes() -> Counter[str]:
    """How many classes there are of each public name."""
    trees = (ast.parse(file.read_text("utf-8")) for file in modules().values())
    return Counter(n.name for t in trees for n in t.body if isinstance(n, ast.ClassDef) and n.name[0] != "_")


def longest_functions(count: int = 10) -> list[tuple[int, str]]:
    """(lines, module.function) of the longest functions."""
    found = []
    for name, file in modules().items():
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.append(((node.end_lineno or node.lineno) - node.lineno + 1, f"{name}.{node.name}"))
    return sorted(found, reverse=True)[:count]


def main() -> int:
    arrows, all_arrows, lines = graph(typed=False), graph(typed=True), Counter[str]()
    for name, file in modules().items():
        for place in folders():
            if name == place or name.startswith(f"{place}."):
                lines[place] += len(file.read_text("utf-8").splitlines())
    for place in folders():
        plan = rooms(place, arrows)
        levels = floors(plan)
        sys.stdout.write(
            f"{place}: {lines[place]} lines, {len(plan)} rooms, {max(levels.values(), default=0)} floors\n"
        )
        for level in sorted(set(levels.values())):
            sys.stdout.write(f"  {level}  {' '.join(sorted(r for r, at in levels.items() if at == level))}\n")
        if lost := sorted(plan.keys() - levels.keys()):
            sys.stdout.write(f"  no floor: {' '.join(lost)}\n")
    found = circles(all_arrows)
    sys.stdout.write(f"circles: {len(found)}\n")
    for group in found:
        sys.stdout.write(f"  {' '.join(group)}\n")
    doubles = {name: count for name, count in public_classes().items() if count > 1}
    sys.stdout.write(f"public class names used twice: {doubles or 'none'}\n")
    sys.stdout.write("longest functions:\n" + "".join(f"  {n}  {name}\n" for n, name in longest_functions()))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
