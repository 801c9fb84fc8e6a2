"""What is asked of a slice, and what a model answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.types.images import Plane, Region


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked of one slice. Immutable and hashable.

    Args:
        task: A name of ``tasks.TASKS``.
        target: The phrase to segment, for the tasks that take one.
        question: The user's own words; empty means the task's wording from the model's configuration.
        answer: A given answer that the model reads instead of writing its own (grounding).
        region: A box that is drawn on the picture.
        exact: Question and answer go in verbatim: placeholders, newlines and special tokens count as such.
        max_new_tokens: Longest answer in tokens.
        among: Of a closed question that checks what others found, the names that the answer may be; it is answered in
            words alone. Empty for all that the model has for the modality.
    """

    task: str
    target: str = ""
    question: str = ""
    answer: str | None = None
    region: Region | None = None
    exact: bool = False
    max_new_tokens: int = 256
    among: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class CroppedMask:
    """A boolean mask kept as its bounding box, 2D or 3D.

    Args:
        crop: Boolean array of the box; has size 0 for an empty mask.
        offset: Index of the box's first element in the whole array.
        shape: Shape of the whole array.
    """

    crop: NDArray[np.bool_]
    offset: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def from_full(cls, mask: NDArray[np.bool_]) -> CroppedMask:
        """Crop a whole mask; the crop is a copy, so the whole array can be freed."""
        where = [np.flatnonzero(mask.any(axis=tuple(j for j in range(mask.ndim) if j != i))) for i in range(mask.ndim)]
        if any(len(w) == 0 for w in where):
            return cls(np.zeros((0,) * mask.ndim, bool), (0,) * mask.ndim, mask.shape)
        box = tuple(slice(int(w[0]), int(w[-1]) + 1) for w in where)
        return cls(mask[box].astype(bool, copy=True), tuple(s.start for s in box), mask.shape)

    @property
    def box(self) -> tuple[slice, ...]:
        return tuple(slice(o, o + n) for o, n in zip(self.offset, self.crop.shape, strict=True))

    @property
    def count(self) -> int:
        """Number of foreground elements."""
        return int(self.crop.sum())

    def full(self) -> NDArray[np.bool_]:
        """The whole mask, newly allocated."""
        whole = np.zeros(self.shape, bool)
        whole[self.box] = self.crop
        return whole


@dataclass(frozen=True, slots=True)
class Phrase:
    """A piece of an answer, ``text[start:end]`` of the prediction, with its mask where it has one.

    Args:
        score: How sure the model is that the phrase is there, 0..1.
        mask: 2D mask on the slice, or None where the answer gives no region.
        target: The vocabulary or prompt name it stands for.
    """

    text: str
    start: int
    end: int
    score: float
    mask: CroppedMask | None = None
    target: str = ""


@dataclass(frozen=True, slots=True)
class Caution:
    """Why the answer to a question lies outside of what the model has learnt.

    Args:
        code: "subject_not_learnt": the question asks for something that is not among the model's targets for the
            modality; "no_target_named": it names none of them.
        subjects: The words of the question that are not among the targets.
    """

    code: Literal["subject_not_learnt", "no_target_named"]
    subjects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to one prompt on one slice.

    Args:
        text: Clean text for people.
        raw_text: As generated, special tokens kept.
        truncated: The length limit cut the answer.
        seconds: Share of the wall time that this answer took.
        likelihood: Of an answer that is one of a few (yes or no, the name of a box): the share of the model's
            likelihood that this one has among them, 0..1; not calibrated. None for other answers.
        caution: Why an answer in words should not be relied on; None where there is no such reason.
        shares: Of a closed question, each name that the answer could be and its share of the model's likelihood.
    """

    prompt: Prompt
    plane: Plane
    index: int
    text: str
    raw_text: str
    phrases: tuple[Phrase, ...]
    truncated: bool = False
    seconds: float = 0.0
    likelihood: float | None = None
    caution: Caution | None = None
    shares: tuple[tuple[str, float], ...] = ()

    @property
    def masks(self) -> tuple[CroppedMask, ...]:
        return tuple(p.mask for p in self.phrases if p.mask is not None)
