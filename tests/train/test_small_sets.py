"""Few patients and no division: a fifth of them by count, the same each time, never an empty split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.train.datasets.tiny_layouts_folders import disc, label_map, picture, save_picture, voxels, write_nnunet
from train.data import records as record_files
from train.datasets.request import held_out_by_count, split_of
from train.prepare import main, prepare
from unibiomed_core.errors import DataError

NAME = "name=set"


def pictures(folder: Path, count: int) -> Path:
    for number in range(count):
        save_picture(folder / "images" / f"p{number}.png", picture(number))
        save_picture(folder / "masks" / f"p{number}.png", disc().astype(np.uint8))
    return folder


def splits(out: Path) -> dict[str, list[str]]:
    return {s: [r.group for r in record_files.load(out / f"{s}.parquet")] for s in ("train", "test")}


def unlucky(count: int) -> str:
    """A data set's name under which the hash puts all pictures into the training split."""
    names = (f"set{n}" for n in range(1000))
    groups = [f"images/p{n}" for n in range(count)]
    return next(name for name in names if all(split_of(name, g) == "train" for g in groups))


@pytest.mark.parametrize("count", [2, 3, 12])
def test_a_small_set_is_divided_by_count(tmp_path: Path, count: int) -> None:
    """bugs small-sets."""
    source, said = pictures(tmp_path / "source", count), list[str]()
    settings = ["modality=ultrasound", f"name={unlucky(count)}"]
    prepare(source, tmp_path / "a", 32, said.append, settings)
    prepare(source, tmp_path / "b", 32, lambda line: None, settings)
    found = splits(tmp_path / "a")
    assert len(found["test"]) == max(1, round(count / 5))
    assert sorted(found["train"] + found["test"]) == sorted(f"images/p{n}" for n in range(count))
    assert splits(tmp_path / "b") == found
    assert [line for line in said if "a fifth of them by count is the test split" in line]


def test_a_small_nnunet_set_is_divided_by_case(tmp_path: Path) -> None:
    """bugs small-sets: every slice of a case is on one side."""
    about = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}
    files = {f"imagesTr/p{n}_0000.nii.gz": voxels(n) for n in range(3)}
    source = write_nnunet(tmp_path / "s", about, files | {f"labelsTr/p{n}.nii.gz": label_map((1,)) for n in range(3)})
    name = next(n for n in map(str, range(1000)) if all(split_of(n, f"p{g}") == "train" for g in range(3)))
    prepare(source, tmp_path / "out", 32, lambda line: None, [f"name={name}"])
    found = splits(tmp_path / "out")
    assert len(set(found["test"])) == 1
    assert not set(found["test"]) & set(found["train"])


def test_a_set_that_the_names_divide_is_left_as_it_was(tmp_path: Path) -> None:
    groups = [f"images/p{n}" for n in range(12)]
    name = next(n for n in map(str, range(1000)) if {split_of(n, g) for g in groups} == {"train", "test"})
    said: list[str] = []
    prepare(pictures(tmp_path / "s", 12), tmp_path / "o", 32, said.append, ["modality=ultrasound", f"name={name}"])
    assert all(split_of(name, g) == split for split, found in splits(tmp_path / "o").items() for g in found)
    assert not [line for line in said if "by count" in line]


def test_one_picture_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Nothing to test with.*two at least"):
        prepare(pictures(tmp_path / "s", 1), tmp_path / "out", 32, lambda line: None, ["modality=ultrasound"])


def test_the_summary_for_people_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = pictures(tmp_path / "s", 4)
    assert main(["auto", str(source), str(tmp_path / "o"), "modality=ultrasound", f"name={unlucky(4)}"]) == 0
    assert "note 1 x: few patients or pictures and no division" in capsys.readouterr().out


def test_the_groups_held_out_follow_from_their_names_alone() -> None:
    groups = [f"patient{n}" for n in range(20)]
    chosen = held_out_by_count("set", groups)
    assert chosen == held_out_by_count("set", reversed(groups))
    assert len(chosen) == 4
    assert {held_out_by_count(name, groups) for name in "abc"} != {chosen}
    assert held_out_by_count("set", ["alone"]) == frozenset()
    assert len(held_out_by_count("set", ["a", "b"])) == 1
