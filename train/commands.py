"""How the commands of this folder are called: as files in the repository, as modules of the installed package."""

from __future__ import annotations

import re

PACKAGE = __name__.rpartition(".")[0]
"""``train`` in the repository; ``unibiomed_train`` once installed, as a package ``train`` would hide anybody's."""


def as_called(text: str, package: str = PACKAGE) -> str:
    """A text that names commands as in the repository, with the names that work here.

    ``python train/run.py mini`` becomes ``python -m unibiomed_train.run mini`` where this is installed.
    """
    return text if package == "train" else re.sub(r"\btrain/(\w+)\.py\b", rf"-m {package}.\1", text)
