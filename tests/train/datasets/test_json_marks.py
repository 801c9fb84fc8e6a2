"""JSON that begins with a byte order mark, as some Windows tools write it, wherever training reads one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.train.datasets.tiny_layouts_folders import disc, label_map, picture, save_picture, voxels, write_nnunet
from tests.train.tiny_data import write_tree
from train.datasets import coco, image_masks, nnunet, shared_layout
from train.datasets.request import ConversionRequest, Converter, Summary
from train.datasets.settings import read_settings
from train.evaluation.tables import read_run, read_table
from unibiomed_core.errors import ConfigError, DataError

ENCODINGS = pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])


def count(convert: Converter, source: Path, **settings: Any) -> int:
    summary = Summary()
    found = sum(1 for _ in convert(ConversionRequest(source, "tiny", **settings), summary))
    assert not summary.refused
    return found


def again(path: Path, encoding: str) -> None:
    """The same text in another encoding."""
    path.write_bytes(path.read_text("utf-8").encode(encoding))


@ENCODINGS
def test_labels_of_a_setting(tmp_path: Path, encoding: str) -> None:
    """bugs 12."""
    (tmp_path / "labels.json").write_bytes('{"nerve": 1}'.encode(encoding))
    assert read_settings([f"labels={tmp_path / 'labels.json'}"]) == {"labels": {"nerve": (1,)}}


def test_a_broken_table_of_labels_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('{"nerve": 1,\n "vessel" 2}')
    with pytest.raises(ConfigError, match=r"labels.json, line 2, column 11.*JSON file"):
        read_settings([f"labels={tmp_path / 'labels.json'}"])


@ENCODINGS
def test_labels_beside_pictures(tmp_path: Path, encoding: str) -> None:
    """bugs 12."""
    save_picture(tmp_path / "images" / "a.png", picture(1))
    save_picture(tmp_path / "masks" / "a.png", disc().astype(np.uint8))
    (tmp_path / "labels.json").write_bytes('{"nerve": 1}'.encode(encoding))
    assert count(image_masks.convert, tmp_path, modality="ultrasound") == 1


@ENCODINGS
def test_nnunet(tmp_path: Path, encoding: str) -> None:
    """bugs 12."""
    about = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}
    write_nnunet(tmp_path, about, {"imagesTr/a_0000.nii.gz": voxels(), "labelsTr/a.nii.gz": label_map((1,))})
    again(tmp_path / "dataset.json", encoding)
    assert count(nnunet.convert, tmp_path) > 0


@ENCODINGS
def test_the_shared_layout(tmp_path: Path, encoding: str) -> None:
    """bugs 12."""
    folder = write_tree(tmp_path, 2) / "kvasir-seg"
    again(folder / "dataset.json", encoding)
    assert shared_layout.fits(folder)
    assert count(shared_layout.convert, folder) == 2


def test_coco(tmp_path: Path) -> None:
    """bugs 12."""
    save_picture(tmp_path / "images" / "a.png", picture(1))
    rows = [{"image_id": 1, "category_id": 1, "segmentation": [[5, 5, 20, 5, 20, 20]]}]
    document = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": rows,
                "categories": [{"id": 1, "name": "polyp"}]}  # fmt: skip
    (tmp_path / "a.json").write_bytes(json.dumps(document).encode("utf-8-sig"))
    assert count(coco.convert, tmp_path) == 1


def test_scored_folders_of_another_system(tmp_path: Path) -> None:
    assert read_run(tmp_path) == {}
    (tmp_path / "run.json").write_bytes('{"model": "ours"}'.encode("utf-8-sig"))
    assert read_run(tmp_path) == {"model": "ours"}
    (tmp_path / "run.json").write_text("[1]")
    with pytest.raises(DataError, match=r"run.json is a list"):
        read_run(tmp_path)
    with pytest.raises(DataError, match=r"table.json: there is no such file. Expected: .*evaluate.py score"):
        read_table(tmp_path)
