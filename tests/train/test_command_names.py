"""How commands are named: as files in the repository, as modules where the package is installed."""

from __future__ import annotations

import pytest

from train.commands import as_called


@pytest.mark.parametrize(
    ("text", "installed"),
    [
        ("python train/run.py mini data=DATA", "python -m unibiomed_train.run mini data=DATA"),
        ("accelerate launch train/run.py mini", "accelerate launch -m unibiomed_train.run mini"),
        (
            "a file train/datasets/layouts.py, train/images/a.png",
            "a file train/datasets/layouts.py, train/images/a.png",
        ),
    ],
)
def test_commands_are_named_as_they_work(text: str, installed: str) -> None:
    assert as_called(text) == text
    assert as_called(text, "unibiomed_train") == installed
