"""What ``pip install "napari-unibiomed[EXTRA]"`` leaves, without a network: our wheel and what it asks for, no more.

The packages are those of the environment that runs the tests, linked one by one into a new one; what our requirements
do not ask for is not there, as it would not be for somebody who installs one extra alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


class NotInstalledError(Exception):
    """Something that the wheel asks for is not in the environment that runs the tests."""


def asked_for(rows: Iterable[str], extras: Collection[str] = ()) -> dict[str, metadata.Distribution]:
    """Canonical name -> installed distribution of everything that requirements ask for, by way of others too.

    Args:
        rows: Requirements as a distribution states them, with markers.
        extras: Those of that distribution which are wanted.

    Raises:
        NotInstalledError: One of them is not installed here.
    """
    found: dict[str, metadata.Distribution] = {}
    seen = set()
    waiting = [(row, extra) for row in rows for extra in ("", *extras)]
    while waiting:
        row, extra = waiting.pop()
        requirement = Requirement(row)
        if (row, extra) in seen or (requirement.marker and not requirement.marker.evaluate({"extra": extra})):
            continue
        seen.add((row, extra))
        name = canonicalize_name(requirement.name)
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError as cause:
            raise NotInstalledError(f"{row}, which is not installed here") from cause
        waiting += [(inner, e) for inner in found[name].requires or () for e in ("", *requirement.extras)]
    return found


@dataclass(frozen=True)
class FreshEnvironment:
    """A virtual environment of its own, used from a folder outside of the checkout."""

    folder: Path
    elsewhere: Path

    @property
    def scripts(self) -> Path:
        return self.folder / ("Scripts" if os.name == "nt" else "bin")

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment, by its name; nothing of the checkout is on its path."""
        clean = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
        offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "QT_QPA_PLATFORM": "offscreen"}
        words = [str(self.scripts / command[0]), *command[1:]]
        return subprocess.run(words, cwd=self.elsewhere, env=clean | offline, capture_output=True, text=True)

    def python(self, code: str) -> str:
        """What a program of the environment prints; it has to end well."""
        done = self.call("python", "-c", code)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout


def install(wheel: Path, folder: Path, extras: Collection[str] = ()) -> FreshEnvironment:
    """A new environment under a folder with a wheel, some of its extras and what they ask for.

    Raises:
        NotInstalledError: Something that it asks for is not installed here.
    """
    venv.create(folder / "environment", with_pip=False, symlinks=os.name != "nt")
    (folder / "elsewhere").mkdir()
    made = FreshEnvironment(folder / "environment", folder / "elsewhere")
    python = str(made.scripts / "python")
    site = Path(made.python("import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-index", "--no-deps", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)

    (own,) = metadata.distributions(name="napari-unibiomed", path=[str(site)])
    here = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    for distribution in asked_for(own.requires or (), extras).values():
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            source = Path(str(distribution.locate_file(top)))
            assert source.parent in here, f"{source} is not where packages are"
            if not (site / top).exists():
                (site / top).symlink_to(source, target_is_directory=source.is_dir())
    return made
