"""Answers as files: slice numbers, spans, and masks that land where they belong whatever the order of the file."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from tests.hand_volumes import AXIS_CODES, cropped, picture_of, volume_of
from unibiomed_core.errors import PromptError, WriteError
from unibiomed_core.io.export.answer import answer_names, of_slice, of_slices, write_answer
from unibiomed_core.report import checked_slice
from unibiomed_core.types import PLANES, CroppedMask, Phrase, Plane, Prediction, Prompt, Volume

SIZES = {"R": 20, "L": 20, "A": 18, "P": 18, "S": 16, "I": 16}
STEPS_MM = {"R": 1.0, "L": 1.0, "A": 2.0, "P": 2.0, "S": 3.0, "I": 3.0}


def volume(codes: str) -> Volume:
    """A volume stored in the order and directions of ``codes``, 1 x 2 x 3 mm."""
    affine = np.eye(4)
    affine[:3, :3] = nibabel.orientations.inv_ornt_aff(
        nibabel.orientations.axcodes2ornt(tuple(codes)), tuple(SIZES[c] for c in codes)
    )[:3, :3] @ np.diag([STEPS_MM[c] for c in codes])
    stored = np.random.default_rng(0).integers(-500, 500, [SIZES[c] for c in codes]).astype(np.int16)
    return volume_of(stored, affine)


def predicted(
    index: int, *phrases: tuple[str, float, CroppedMask | None], plane: Plane = "axial", target: str = ""
) -> Prediction:
    """A prediction whose text is its phrases, each followed by a full stop."""
    made, text = [], ""
    for words, score, mask in phrases:
        text += " " if text else ""
        made.append(Phrase(words, len(text), len(text) + len(words), score, mask, words))
        text += f"{words}."
    return Prediction(Prompt("segment", target), plane, index, text, f"raw {text}", tuple(made))


@pytest.mark.parametrize("codes", AXIS_CODES)
def test_masks_of_a_slice_land_where_they_belong_whatever_the_order_of_the_file(codes: str, tmp_path: Path) -> None:
    image = volume(codes)
    for plane in PLANES:
        axis = image.plane_axis(plane)
        index = checked_slice(image, plane, 3)
        mask = np.zeros(image.slice(index, plane).shape, bool)
        mask[4:6, 5:9] = True
        given = of_slice([predicted(index, ("liver", 0.9, cropped(mask)), plane=plane)], image)
        files = write_answer(given, image, plane, tmp_path / plane, {})
        written = nibabel.load(files[1])
        assert np.allclose(written.affine, image.stored.affine)
        back = image.stored.to_canonical(np.asarray(written.dataobj)).astype(bool)
        assert np.array_equal(np.moveaxis(back, axis, 0)[index], mask)
        assert back.sum() == mask.sum()


@pytest.mark.parametrize("number", [-1, 16, 17])
def test_a_slice_that_is_not_there_is_told(number: int) -> None:
    with pytest.raises(PromptError, match=rf"No such slice.*slice {number}.*0 to 15"):
        checked_slice(volume("RAS"), "axial", number)


def test_phrases_of_many_slices_are_united() -> None:
    image = volume("LPI")
    first, second = np.zeros((18, 20), bool), np.zeros((18, 20), bool)
    first[2:4, 2:7], second[3:5, 2:7] = True, True
    given = [
        predicted(4, ("liver", 0.6, cropped(first)), target="hepar"),
        predicted(4, ("spleen", 0.2, None), target="spleen"),
        predicted(5, ("liver", 0.8, cropped(second)), ("liver", 0.7, cropped(first)), target="hepar"),
        predicted(5, ("spleen", 0.3, None), target="spleen"),
    ]
    answer = of_slices(given, image, "axial")
    # Slice 4 has 10 pixels, slice 5 the union of two masks: 15; a voxel has 6 cubic mm.
    assert answer.text == (
        "liver: axial slices 4–5, 0.150 mL (presence 0.80). spleen: not found on 2 slices (presence 0.30)."
    )
    assert [answer.text[p["start"] : p["end"]] for p in answer.phrases] == ["liver", "spleen"]
    assert [p["mask"] for p in answer.phrases] == ["mask_01_liver.nii.gz", None]
    assert answer.raw_text.splitlines() == ["raw liver.", "raw liver. liver.", "raw spleen."]


def test_answers_on_one_slice_stand_in_a_row_with_their_spans(tmp_path: Path) -> None:
    picture = picture_of(np.random.default_rng(1).integers(0, 255, (20, 30, 3), dtype=np.uint8))
    mask = np.zeros((20, 30), bool)
    mask[3:9, 4:20] = True
    given = of_slice(
        [
            predicted(0, ("A/../b c", 0.9, cropped(mask)), ("nothing", 0.1, None)),
            predicted(0, ("empty", 0.5, cropped(np.zeros((20, 30), bool)))),
        ],
        picture,
    )
    files = write_answer(given, picture, "axial", tmp_path, {"seconds": 1.5})
    assert [file.name for file in files] == ["answer.json", "mask_01_a_b_c.png", "mask_02_empty.png"]
    written = json.loads(files[0].read_text("utf-8"))
    assert [written["text"][p["start"] : p["end"]] for p in written["phrases"]] == ["A/../b c", "nothing", "empty"]
    assert [p["mask"] for p in written["phrases"]] == ["mask_01_a_b_c.png", None, "mask_02_empty.png"]
    assert written["seconds"] == 1.5
    assert np.array_equal(np.asarray(Image.open(files[1])), np.where(mask, 255, 0))
    assert not np.asarray(Image.open(files[2])).any()


def test_masks_of_an_earlier_answer_are_in_the_way(tmp_path: Path) -> None:
    assert answer_names(tmp_path / "new") == ["answer.json"]
    (tmp_path / "mask_03_aorta.png").touch()
    assert answer_names(tmp_path) == ["answer.json", "mask_03_aorta.png"]
    (tmp_path / "answer.json").touch()
    picture = picture_of(np.random.default_rng(1).integers(0, 255, (20, 30, 3), dtype=np.uint8))
    with pytest.raises(WriteError, match="Files exist already"):
        write_answer(of_slice([], picture), picture, "axial", tmp_path, {})
    assert (tmp_path / "answer.json").read_text("utf-8") == ""
