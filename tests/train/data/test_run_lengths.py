"""Masks as COCO run lengths: the same as the COCO library's, and damaged ones are refused instead of taking memory."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from train.data.run_lengths import decode_mask, encode_mask, filled, unpacked
from unibiomed_core.errors import DataError


def masks() -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    sizes = rng.integers(1, 50, (60, 2))
    noisy = [rng.random(size) < rng.random() for size in sizes]
    smooth = [np.kron(mask, np.ones((7, 11), bool)) for mask in noisy[:20]]
    return [*noisy, *smooth, np.zeros((3, 9), bool), np.ones((9, 3), bool)]


@pytest.mark.parametrize("mask", masks(), ids=lambda mask: f"{mask.shape}")
def test_the_same_as_the_coco_library(mask: np.ndarray) -> None:
    packed = encode_mask(mask)
    assert np.array_equal(decode_mask(packed, mask.shape), mask)
    assert np.array_equal(decode_mask(packed.decode(), mask.shape), mask)
    assert np.array_equal(coco_mask.decode({"size": list(mask.shape), "counts": packed}), mask)


def test_lengths_of_a_whole_mask() -> None:
    assert unpacked(encode_mask(np.ones((30, 40), bool))).tolist() == [0, 1200]


@pytest.mark.parametrize(
    "damaged", [b"", b"0", b"zzzz", b"\x00", b"P", b"oooooooooo0", "\u00e9", b"0" * 1000, b"1O2", b"5:", b"5" * 50]
)
def test_damaged_strings_are_refused(damaged: str | bytes) -> None:
    with pytest.raises(DataError, match="Damaged mask"):
        decode_mask(damaged, (16, 16))


@pytest.mark.parametrize("seed", range(3))
def test_no_damage_writes_beyond_the_mask(seed: int) -> None:
    rng, packed = np.random.default_rng(seed), encode_mask(np.tri(16, dtype=bool))
    refused = 0
    for _ in range(1000):
        damaged = bytearray(packed)
        for place in rng.integers(0, len(packed), rng.integers(1, 4)):
            damaged[place] = rng.integers(48, 112)
        try:
            assert decode_mask(bytes(damaged), (16, 16)).shape == (16, 16)
        except DataError:
            refused += 1
    assert refused > 900


@pytest.mark.parametrize("counts", [[], [-1, 5], [5], [3, 2, -1], [1 << 40, 4 - (1 << 40)]])
def test_runs_that_do_not_fill_the_mask_are_refused(counts: list[int]) -> None:
    with pytest.raises(DataError, match="Expected: 4 pixels"):
        filled(np.array(counts, np.int64), (2, 2))
