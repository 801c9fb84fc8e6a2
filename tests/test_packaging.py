"""What is installed is what is declared: dependencies, extras, entry points, the wheel, the Makefile."""

from __future__ import annotations

import ast
import functools
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import unibiomed_core
from tests.fresh_environment import FreshEnvironment, NotInstalledError, install
from tests.train.tiny_data import write_tree
from unibiomed_core.samples import samples

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]

DISTRIBUTION = {"PIL": "pillow", "skimage": "scikit-image", "sklearn": "scikit-learn"}
"""Import name -> distribution, where the two differ."""

OWN = {"unibiomed_core", "train", "napari_unibiomed"}
MAY_NEED = {
    "unibiomed_core": {"train", "dicom"},  # only inside functions: see below
    "train": {"train"},
    "napari_unibiomed": {"gui"},
}
"""Package -> extras that its imports may come from, besides the dependencies of every installation."""


def requirements(rows: list[str]) -> list[Requirement]:
    return [Requirement(row) for row in rows if not row.startswith(PROJECT["name"])]


def names(rows: list[str]) -> set[str]:
    return {r.name.lower() for r in requirements(rows)}


def test_extras_are_the_promised_ones() -> None:
    assert set(EXTRAS) == {"gui", "dicom", "train", "dev", "docs", "all"}
    (everything,) = EXTRAS["all"]
    assert Requirement(everything).extras == {"gui", "dicom", "train", "dev"}


@pytest.mark.parametrize("row", [*PROJECT["dependencies"], *(r for rows in EXTRAS.values() for r in rows)])
def test_bounds_are_lower_bounds(row: str) -> None:
    """The pin of PyTorch stands in the constraints; transformers alone has an end: we build on its classes."""
    for bound in Requirement(row).specifier:
        assert bound.operator == ">=" or (Requirement(row).name, bound.operator) == ("transformers", "<")


def test_nothing_that_breaks_a_cpu_installation() -> None:
    every = names(PROJECT["dependencies"]).union(*(names(rows) for rows in EXTRAS.values()))
    assert not every & {"torchvision", "sam2"}


def test_the_constraint_satisfies_the_bound() -> None:
    lines = [li for li in (ROOT / "constraints-cpu.txt").read_text("utf-8").splitlines() if not li.startswith("#")]
    pinned = [Requirement(line) for line in lines]
    assert [r.name for r in pinned] == ["torch"]
    bound = next(r for r in requirements(PROJECT["dependencies"]) if r.name == "torch")
    assert str(next(iter(pinned[0].specifier)).version) in bound.specifier


def imported(file: Path) -> Iterator[tuple[str, bool]]:
    """(top-level name, inside a function) of every third-party import."""
    tree = ast.parse(file.read_text("utf-8"))
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {id(inner) for function in functions for inner in ast.walk(function)}
    for node in ast.walk(tree):
        found = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found = [node.module]
        for name in found:
            top = name.split(".")[0]
            if top not in sys.stdlib_module_names and top not in OWN:
                yield DISTRIBUTION.get(top, top), id(node) in inside


@pytest.mark.parametrize("package", MAY_NEED)
def test_every_import_is_declared(package: str) -> None:
    always = names(PROJECT["dependencies"])
    extra = set[str]().union(*(names(EXTRAS[e]) for e in MAY_NEED[package]))
    for file in (ROOT / package).rglob("*.py"):
        for name, lazily in imported(file):
            declared = always | extra if lazily or package != "unibiomed_core" else always
            assert name.lower() in declared, f"{file.relative_to(ROOT)} imports {name}, which is not declared"


def test_versions_agree() -> None:
    assert PROJECT["version"] == unibiomed_core.__version__
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    assert cited
    assert cited[1] == PROJECT["version"]
    assert Version(metadata.version(PROJECT["name"])) == Version(PROJECT["version"])


def test_entry_points_resolve() -> None:
    module, name = PROJECT["scripts"]["unibiomed"].split(":")
    assert callable(getattr(importlib.import_module(module), name))
    package, manifest = PROJECT["entry-points"]["napari.manifest"][PROJECT["name"]].split(":")
    assert (ROOT / package / manifest).is_file()


def test_licence_and_citation_are_the_promised_ones() -> None:
    licence = (ROOT / "LICENSE").read_text("utf-8")
    assert PROJECT["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert "UniBiomed: A Universal Foundation Model for Grounded Biomedical Image Interpretation" in citation
    assert citation.count("family-names:") == 11
    assert all((ROOT / name).is_file() for name in PROJECT["license-files"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling, of the extra dev, is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


INSTALLED_AS = {"unibiomed_core": "unibiomed_core", "napari_unibiomed": "napari_unibiomed", "train": "unibiomed_train"}
"""Folder -> package in site-packages, where ``train`` would hide anybody's."""

FOLDER = {package: folder for folder, package in INSTALLED_AS.items()}


def test_a_wheel_holds_all_it_needs_and_its_samples_are_found(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        inside = set(packed.namelist())
        packed.extractall(tmp_path / "site")
    for folder, package in INSTALLED_AS.items():
        tracked = [f for f in (ROOT / folder).rglob("*") if f.is_file() and "__pycache__" not in f.parts]
        missing = {f"{package}/{f.relative_to(ROOT / folder).as_posix()}" for f in tracked} - inside
        assert not missing
    tops = {name.split("/")[0] for name in inside}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(INSTALLED_AS.values())
    code = (
        "import unibiomed_core; from unibiomed_core.samples import samples;"
        "print(unibiomed_core.__file__); print(*[s.path for s in samples().values() if s.mask.is_file()], sep='\\n')"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    lines = [Path(line).resolve() for line in done.stdout.splitlines()]
    assert len(lines) == 1 + len(samples())
    assert all(line.is_file() and line.is_relative_to((tmp_path / "site").resolve()) for line in lines)


def test_training_names_itself_only_by_its_place() -> None:
    """An import or resource by the name ``train``, in a function too, would be missing where the wheel is installed."""
    for file in (ROOT / "train").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            called = node.args[:1] if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(BY_NAME) else []
            named = [text.value for arg in called for text in ast.walk(arg) if isinstance(text, ast.Constant)]
            if isinstance(node, ast.Import):
                named = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                named = [node.module]
            absolute = [name for name in named if str(name).split(".")[0] == "train"]
            assert not absolute, f"{file.relative_to(ROOT)}, line {getattr(node, 'lineno', 0)}: {absolute}"


BY_NAME = ("import_module", "find_spec", "files")
"""Functions that take a module by its name."""


EVERY_MODULE = """
import importlib, importlib.util, pkgutil
package = importlib.import_module({package!r})
names = [module.name for module in pkgutil.walk_packages(package.__path__, {package!r} + ".")]
for name in names:
    importlib.import_module(name)
print(len(names), package.__file__, *[name for name in {absent!r} if importlib.util.find_spec(name)])
"""

Install = Callable[[str], FreshEnvironment]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Install:
    """The wheel with one extra, or none, in an environment of its own."""

    @functools.cache
    def made(extra: str) -> FreshEnvironment:
        try:
            return install(wheel, tmp_path_factory.mktemp(extra or "plain"), [extra] if extra else [])
        except NotInstalledError as missing:
            pytest.skip(f"the wheel asks for {missing}")

    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "package", "absent"),
    [
        ("", "unibiomed_core", ("train", "tests", "napari", "pydicom", "peft", "accelerate", "pytest")),
        ("gui", "napari_unibiomed", ("train", "tests", "pydicom", "peft", "accelerate", "pytest")),
        ("train", "unibiomed_train", ("train", "tests", "napari", "qtpy", "pytest")),
    ],
)
def test_an_extra_alone_is_enough_for_its_package(
    extra: str, package: str, absent: tuple[str, ...], installed: Install
) -> None:
    if extra == "gui":
        pytest.importorskip("qtpy.QtWidgets", reason="Qt cannot be loaded", exc_type=ImportError)
    fresh = installed(extra)
    count, file, *too_much = fresh.python(EVERY_MODULE.format(package=package, absent=absent)).split()
    assert int(count) == len(list((ROOT / FOLDER[package]).rglob("*.py"))) - 1
    assert Path(file).is_relative_to(fresh.folder)
    assert not too_much


@pytest.mark.slow
def test_dicom_alone_reads_dicom_and_without_it_the_error_names_it(installed: Install) -> None:
    pydicom_data = pytest.importorskip("pydicom.data", reason="pydicom, of the extra dicom, is not installed")
    file = pydicom_data.get_testdata_file("CT_small.dcm", download=False)
    code = f"import unibiomed_core; print(*unibiomed_core.read({file!r}).voxels.shape)"
    assert installed("dicom").python(code).split() == ["1", "128", "128"]
    done = installed("").call("python", "-c", code)
    assert done.returncode
    assert "pip install 'napari-unibiomed[dicom]'" in done.stderr


@pytest.mark.slow
def test_the_installed_command_reports_on_an_installed_sample(installed: Install) -> None:
    fresh = installed("")
    sample = fresh.python("from unibiomed_core.samples import samples; print(samples()['dermoscopy'].path)").strip()
    assert Path(sample).is_relative_to(fresh.folder)
    done = fresh.call("unibiomed", "report", sample, "--modality", "dermoscopy", "--offline", "--out", "report")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "<html" in (fresh.elsewhere / "report" / "report.html").read_text("utf-8")


@pytest.mark.slow
def test_napari_finds_the_installed_plugin_and_all_that_its_manifest_names(installed: Install) -> None:
    pytest.importorskip("qtpy.QtWidgets", reason="Qt cannot be loaded", exc_type=ImportError)
    code = (
        "from npe2 import PluginManager; found = PluginManager(); found.discover();"
        "manifest = found.get_manifest('napari-unibiomed'); manifest.validate_imports();"
        "print(len(manifest.contributions.commands))"
    )
    manifest = (ROOT / "napari_unibiomed" / "napari.yaml").read_text("utf-8")
    assert int(installed("gui").python(code)) == manifest.count("python_name:") > 10


@pytest.mark.slow
def test_the_installed_training_trains(installed: Install) -> None:
    fresh = installed("train")
    data = write_tree(fresh.elsewhere / "data")
    words = ["toy", f"data={data}", "out=run", "record_side=64", "threads=1"]
    done = fresh.call("python", "-m", "unibiomed_train.run", *words)
    assert done.returncode == 0, done.stderr[-2000:]
    exported = json.loads((fresh.elsewhere / "run" / "export" / "config.json").read_text("utf-8"))
    assert exported["facts"]["trained_by"].startswith("python -m unibiomed_train.run toy")
    done = fresh.call("python", "-m", "unibiomed_train.prepare", "--help")
    assert "python -m unibiomed_train.prepare DATASET SOURCE OUT" in done.stdout


def test_ci_runs_the_readme_command_and_the_slow_tier() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert re.findall(r"^make ([\w-]+)", script.read_text("utf-8"), re.MULTILINE) == ["test", "test-slow"]
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.fixture
def plan() -> Any:
    """What make would do, in a folder without an environment."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")

    def planned(target: str, *settings: str) -> str:
        done = subprocess.run(
            ["make", "-n", target, "VENV=nowhere", *settings], cwd=ROOT, check=True, capture_output=True, text=True
        )
        return done.stdout

    return planned


def test_each_command_sets_up_what_it_needs(plan: Any) -> None:
    for target in ("report", "test", "lint", "bench"):
        assert plan(target).index("-m venv nowhere") < plan(target).index('-e ".[all]"')
    assert f"unibiomed report {samples()['ct'].path.relative_to(ROOT)} --out out/report" in plan("report")
    assert "sam2==1.1.0" in plan("test")
    assert "xvfb" in plan("test")
    assert "pytest" in plan("test")


def test_the_environment_is_keyed_by_what_it_is_made_of(plan: Any, tmp_path: Path) -> None:
    (key,) = set(re.findall(r"nowhere/ready-\d+", plan("lint")))
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints-cpu.txt"):
        shutil.copy(ROOT / name, copy)
    command = ["make", "-n", "lint", "VENV=nowhere"]
    keys = [key]
    for change in ("", "\n# changed\n"):
        (copy / "constraints-cpu.txt").write_text((copy / "constraints-cpu.txt").read_text("utf-8") + change, "utf-8")
        done = subprocess.run(command, cwd=copy, check=True, capture_output=True, text=True)
        keys += set(re.findall(r"nowhere/ready-\d+", done.stdout))
    assert len(set(keys)) == 3  # another place, another content


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make here")
@pytest.mark.parametrize("tier", ["test", "test-slow"])
def test_the_commands_of_the_tiers_hand_pytest_what_they_mean(tier: str, tmp_path: Path) -> None:
    """The very shell lines of the Makefile with an interpreter that prints its words: "echo -n auto" lost the "-n"."""
    interpreter = tmp_path / "bin" / "python"
    interpreter.parent.mkdir()
    interpreter.write_text('#!/bin/sh\n[ "$1" = -c ] && exit 0\necho "$@"\n', "utf-8")
    interpreter.chmod(0o755)
    key = re.search(r"touch \S*(ready-\d+)", subprocess.run(
        ["make", "-n", "lint", f"VENV={tmp_path}"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout)  # fmt: skip
    assert key is not None
    for made in (key[1], "sam2"):
        (tmp_path / made).touch()
    done = subprocess.run(
        ["make", "-s", "-o", "x-packages", tier, f"VENV={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    words = done.stdout.split()
    assert words[:3] == ["-m", "pytest", "-m"]
    assert "slow" in words
    assert words[words.index("-n") + 1] == "auto"
    assert words[words.index("--dist") + 1] == "worksteal"
