"""Windows and the picture that the model sees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from unibiomed_core.errors import ConfigError
from unibiomed_core.io.geometry import canonical_order
from unibiomed_core.modalities import (
    CT_WINDOWS,
    MODALITIES,
    Window,
    choose_window,
    looks_like_hu,
    modality,
    to_rgb,
    with_labels,
)
from unibiomed_core.types import Volume


def volume(values: np.ndarray, name: str = "mri", unit: str = "intensity") -> Volume:
    order, affine = canonical_order(np.eye(4), values.shape[:3])
    return Volume(values, affine, name, unit, "mm", True, order)


NOISE = np.random.default_rng(0).integers(-1000, 1500, (4, 18, 20)).astype(np.int16)


def test_there_are_ten_modalities_and_names_find_them() -> None:
    assert len(MODALITIES) == 10
    for row in MODALITIES.values():
        for name in (row.name, row.label, row.label.upper(), f" {row.name} ", *row.aliases):
            assert modality(name) is row
    assert [modality(code).name for code in ("CT", "MR", "PT", "CR", "DX", "US")] == [
        "ct",
        "mri",
        "pet",
        "xray",
        "xray",
        "ultrasound",
    ]


def test_unknown_modality_is_an_error_with_the_list() -> None:
    with pytest.raises(ConfigError, match="'sonar' is not a modality") as caught:
        modality("sonar")
    assert all(name in str(caught.value) for name in MODALITIES)


def test_hu_look() -> None:
    assert looks_like_hu(volume(NOISE))
    assert not looks_like_hu(volume(NOISE.clip(0)))
    assert not looks_like_hu(volume(NOISE.clip(-1000, 90)))


def test_ct_windows() -> None:
    ct = volume(NOISE, "ct", "HU")
    assert choose_window(ct) == Window("soft tissue", -160, 240)
    assert choose_window(ct, "lung") == CT_WINDOWS["lung"] == Window("lung", -1350, 150)
    with pytest.raises(ConfigError, match="'purple' is not a window preset"):
        choose_window(ct, "purple")
    with pytest.raises(ConfigError, match="do not look like Hounsfield units"):
        choose_window(volume(NOISE, "ct"), "lung")


def test_pet_window() -> None:
    assert choose_window(volume(NOISE.astype(np.float32), "pet", "SUV")) == Window("SUV 0 to 10", 0, 10)


def test_percentiles_leave_zeros_out_and_serve_all_slices() -> None:
    values = np.zeros((2, 40, 50), np.int16)
    values[1] = np.arange(2000).reshape(40, 50) + 1
    window = choose_window(volume(values))
    assert (window.low, window.high) == pytest.approx(np.percentile(np.arange(1, 2001), (0.5, 99.5)))
    assert "0.5 to 99.5" in window.name


def test_percentiles_of_flat_values_have_a_width() -> None:
    values = np.zeros((2, 18, 20), np.float32)
    assert choose_window(volume(values)).high > choose_window(volume(values)).low
    values[0] = 7
    assert choose_window(volume(values)) == replace(choose_window(volume(values)), low=7.0, high=8.0)


def test_eight_bit_pictures_are_left_as_they_are() -> None:
    as_is = Window("as is", 0, 255)
    assert choose_window(volume(NOISE.astype(np.uint8))) == as_is
    assert choose_window(volume(np.zeros((1, 18, 20, 3), np.uint8), "fundus")) == as_is
    assert choose_window(volume(NOISE.clip(0, 255), "xray")) == as_is
    assert choose_window(volume(NOISE.clip(0, 255), "mri")) != as_is


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_to_rgb_scales_rounds_and_clips(dtype: type) -> None:
    pixels = np.array([[-1000, -160, 40, 240, 3000]], dtype)
    picture = to_rgb(pixels, CT_WINDOWS["soft tissue"])
    assert picture.dtype == np.uint8
    assert picture.shape == (1, 5, 3)
    assert picture[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    assert (picture == picture[..., :1]).all()
    assert picture.flags.c_contiguous


def test_to_rgb_keeps_colours_and_grey_levels() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    as_is = Window("as is", 0.0, 255.0)
    assert np.array_equal(to_rgb(colour, as_is), colour)
    grey = colour[..., 0]
    assert np.array_equal(to_rgb(grey, as_is)[..., 1], grey)
    assert np.array_equal(to_rgb(grey.astype(np.int16), as_is)[..., 2], grey)


def test_a_models_lower_case_words_get_the_labels_of_modalities() -> None:
    """ux 16."""
    assert with_labels("soft-tissue sarcoma in limb ct") == "soft-tissue sarcoma in limb CT"
    assert with_labels("an x-ray, an oct and a doctor") == "an X-ray, an OCT and a doctor"
