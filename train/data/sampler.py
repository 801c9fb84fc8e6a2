"""Which records a step shows: a function of (seed, step, position) alone, however many processes there are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.errors import DataError

from .records import Record, RecordSet


class Sampler:
    """Draws a data set first, then one of its records.

    A data set (and modality) is drawn as the square root of its size, so that small ones are seen; drawing costs the
    same for a thousand records and for a million.

    Args:
        usable: (N,) bool, records that may be drawn; None for all.

    Raises:
        DataError: There is none.
    """

    def __init__(self, records: RecordSet, seed: int, usable: NDArray[np.bool_] | None = None) -> None:
        groups = records.groups
        index = np.arange(len(groups), dtype=np.int32) if usable is None else np.nonzero(usable)[0].astype(np.int32)
        if not len(index):
            raise DataError(
                "No record to train on", f"none of the {len(groups)} records fits this stage", "one or more"
            )
        own = groups[index]
        self._order = index[np.argsort(own, kind="stable")]
        sizes = np.bincount(own, minlength=len(records.group_names))
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        chances = np.sqrt(sizes)
        self._chances = chances / chances.sum()
        self.records = records
        self.seed = seed

    def draw(self, rng: np.random.Generator) -> int:
        """The number of one record."""
        group = int(rng.choice(len(self._chances), p=self._chances))
        return int(self._order[rng.integers(self._starts[group], self._starts[group + 1])])

    def rng(self, step: int, position: int) -> np.random.Generator:
        """The generator of one sample; everything random about it comes from here."""
        return np.random.default_rng([self.seed, step, position])

    def samples(self, step: int, count: int) -> Iterator[tuple[Record, np.random.Generator]]:
        """The records of one step, each with its generator."""
        for position in range(count):
            rng = self.rng(step, position)
            yield self.records[self.draw(rng)], rng
