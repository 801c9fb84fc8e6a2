"""Modality and unit: what the values and the name tell, and when the user is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unibiomed_core.errors import ConfigError, ReadError
from unibiomed_core.io import interpret, read

HU = np.random.default_rng(0).integers(-1000, 1500, (20, 18, 17)).astype(np.int16)
EIGHT_BIT = np.random.default_rng(0).integers(0, 256, (20, 18, 17)).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("STS_006_CT.nii.gz", "ct"),
        ("brain-T1.nii", "mri"),
        ("sub-01_FLAIR.nii.gz", "mri"),
        ("chest x-ray.png", "xray"),
        ("CXR.01.png", "xray"),
        ("x_ray.jpg", "xray"),
        ("pt.nii", "pet"),
        ("ct_pet.nii", ""),
        ("T1_T2.nii", "mri"),
        ("contact.nii", ""),
        ("octopus.png", ""),
        ("scan1.nii", ""),
        ("oct-left.png", "oct"),
    ],
)
def test_whole_words_of_the_name(name: str, expected: str) -> None:
    assert interpret.modality_of_name(name)[0] == expected


def test_hu_needs_whole_numbers_in_range() -> None:
    assert interpret.values_look_like_hu(HU)
    assert interpret.values_look_like_hu(HU.astype(np.float32))
    assert not interpret.values_look_like_hu(HU + 0.25)
    assert not interpret.values_look_like_hu(np.abs(HU))
    assert not interpret.values_look_like_hu(EIGHT_BIT)


def test_ct_is_inferred_from_values_with_the_reason(nifti: Callable[..., Path]) -> None:
    volume = read(nifti(HU, name="scan.nii"))
    assert (volume.modality, volume.intensity_unit) == ("ct", "HU")
    assert f"Modality inferred as CT because values run from {HU.min()} to {HU.max()}." in [
        n.text for n in volume.notes
    ]


def test_name_wins_over_values_except_where_it_cannot_be(nifti: Callable[..., Path]) -> None:
    assert read(nifti(HU, name="t1.nii")).modality == "mri"
    assert read(nifti(HU, name="pt_001.nii")).modality == "ct"


def test_caller_wins_over_inference(nifti: Callable[..., Path]) -> None:
    volume = read(nifti(HU, name="scan_ct.nii"), "MR")
    assert (volume.modality, volume.intensity_unit) == ("mri", "intensity")
    assert volume.notes == ()


def test_nothing_tells(nifti: Callable[..., Path]) -> None:
    with pytest.raises(ReadError, match=r"one of ct, mri, xray.*Give it with --modality") as caught:
        read(nifti(np.abs(HU), name="scan.nii"))
    assert caught.value.title == "Modality not told"
    assert caught.value.code == "modality_not_told"


@pytest.mark.parametrize("shape", [(20, 20), (20, 20, 3)])
def test_pictures_are_asked_for_unless_the_name_tells(tmp_path: Path, shape: tuple[int, ...]) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8))
    picture.save(tmp_path / "photo.png")
    with pytest.raises(ReadError, match="Give it with --modality"):
        read(tmp_path / "photo.png")
    picture.save(tmp_path / "fundus_1.png")
    assert read(tmp_path / "fundus_1.png").modality == "fundus"


def test_unknown_modality_is_named(nifti: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="'thermography' is not a modality"):
        read(nifti(HU), "thermography")


def test_windowed_ct_has_no_hu(nifti: Callable[..., Path]) -> None:
    volume = read(nifti(EIGHT_BIT, name="scan_ct.nii"))
    assert (volume.modality, volume.intensity_unit) == ("ct", "intensity")
    assert any("not taken as Hounsfield units because values run from 0 to 255" in n.text for n in volume.notes)


@pytest.mark.parametrize(
    ("values", "unit", "words"),
    [
        (HU.astype(np.float32).clip(0) / 100, "SUV", "taken as SUV because scaled values run from 0 to 14"),
        (HU.astype(np.float32).clip(0), "intensity", "not taken as SUV because values run from 0 to 1499"),
        (EIGHT_BIT % 90, "intensity", "not taken as SUV"),
        (HU.astype(np.float32) / 100, "intensity", "values run from -10"),
    ],
)
def test_pet_is_suv_only_where_plausible(nifti: Callable[..., Path], values: np.ndarray, unit: str, words: str) -> None:
    volume = read(nifti(values, name="scan.nii"), "pet")
    assert volume.intensity_unit == unit
    assert any(words in n.text for n in volume.notes)


def with_padding(value: int) -> np.ndarray:
    values = np.random.default_rng(5).integers(-1000, 1500, (20, 20, 20)).astype(np.int16)
    values[:4] = value
    return values


@pytest.mark.parametrize("value", [-2000, -3024, -32768])
def test_padding_of_a_ct_is_read_as_air_and_said(value: int) -> None:
    """bugs 06: -3024 outside of the scan made a correct CT look like no Hounsfield units."""
    values, (note,) = interpret.without_padding(with_padding(value), "ct", "")
    assert values.min() == interpret.AIR_HU
    assert np.array_equal(values[4:], with_padding(value)[4:])
    assert str(value) in note.text
    assert "20.00%" in note.text


def test_what_is_no_padding_stays() -> None:
    noise = np.random.default_rng(5).integers(-1060, 1500, (20, 20, 20)).astype(np.int16)
    twice = (np.random.default_rng(5).normal(-2000, 20, (20, 20, 20)) * np.ones((20, 20, 20))).astype(np.int16)
    twice[10:] = 900  # the intercept was subtracted twice: that is another scale, and has to be told as such
    for values, name in ((noise, "ct"), (twice, "ct"), (with_padding(-3024), "mri")):
        same, notes = interpret.without_padding(values, name, "HU")
        assert same is values
        assert notes == ()
