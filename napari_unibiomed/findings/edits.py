"""What a user does with findings, as small values that can be taken back; each knows the row to show again."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unibiomed.canvas.painting import inside
from napari_unibiomed.findings.rows import FindingRow, named
from unibiomed_core.types import CroppedMask, Finding, Volume


@dataclass(frozen=True, slots=True, eq=False)
class Edit:
    """One change of one row: how the row was and how it is.

    Args:
        words: The action as people name it, for the undo button.
        changes_mask: The mask was painted on, so the labels have to be repainted when this is taken back.
    """

    words: str
    before: FindingRow
    after: FindingRow
    changes_mask: bool = False

    @property
    def number(self) -> int:
        """The row to reveal."""
        return self.after.number


def reject(row: FindingRow) -> Edit:
    """Keep the row, but leave it out of exports."""
    return Edit("Reject", row, replace(row, rejected=True))


def restore(row: FindingRow) -> Edit:
    return Edit("Restore", row, replace(row, rejected=False))


def rename(row: FindingRow, phrase: str) -> Edit:
    """Call it otherwise; the words that the model used stay in the finding."""
    return Edit("Rename", row, replace(named(row, phrase), edited=True))


def redraw(row: FindingRow, measured: FindingRow | None) -> Edit:
    """Take the measurements of a mask that was painted on; None where nothing of the mask is left."""
    if measured is None:
        return Edit("Erase", row, replace(row, rejected=True, edited=True), changes_mask=True)
    kept = replace(
        named(measured, row.phrase), colour=row.colour, hidden=row.hidden, rejected=row.rejected, edited=True
    )
    return Edit("Paint", row, kept, changes_mask=True)


def measured_again(finding: Finding, mask: CroppedMask, volume: Volume) -> Finding | None:
    """The finding with another mask, measured and flagged as the engine does it; None for an empty mask.

    Its score stays the model's own, and so does why it is believed and what it is a part of.

    Args:
        mask: (Z, Y, X) on the volume's grid.
    """
    from unibiomed_core.engine.volume.counting import with_tallies
    from unibiomed_core.engine.volume.linking import LinkedMask, findings

    if not mask.count:
        return None
    axis = volume.plane_axis(finding.plane)
    others = tuple(i for i in range(3) if i != axis)
    slices = tuple(int(i) + mask.offset[axis] for i in np.flatnonzero(mask.crop.any(axis=others)))
    flags: tuple[str, ...] = ("one_slice",) if len(slices) == 1 and volume.slice_count(finding.plane) > 1 else ()
    flags += ("unsure",) * ("unsure" in finding.flags)
    thing = LinkedMask(finding.target, finding.phrase, finding.presence, mask, finding.plane, slices, (), flags)
    (measured,) = with_tallies(findings([thing], volume, first_number=finding.number), volume)
    return replace(
        measured,
        within=finding.within,
        evidence=finding.evidence,
        description=finding.description,
    )


@dataclass(slots=True)
class History:
    """The edits of one run, newest last; edits of one group are taken back together."""

    steps: list[tuple[Edit, ...]] = field(default_factory=list)
    _open: list[Edit] | None = None

    def push(self, edit: Edit) -> None:
        if self._open is None:
            self.steps.append((edit,))
        else:
            self._open.append(edit)

    @contextmanager
    def group(self) -> Iterator[None]:
        """All edits pushed inside are one step."""
        self._open = []
        try:
            yield
        finally:
            edits, self._open = self._open, None
            if edits:
                self.steps.append(tuple(edits))

    def pop(self) -> tuple[Edit, ...]:
        """The newest step, its last edit first; empty where there is none."""
        return tuple(reversed(self.steps.pop())) if self.steps else ()

    @property
    def words(self) -> str:
        """What would be taken back next; empty where there is nothing."""
        newest = self._open or (self.steps[-1] if self.steps else ())
        return newest[0].words if newest else ""


def mask_on_canvas(
    number: int,
    picture: NDArray[Any],
    own: Mapping[int, CroppedMask],
    painted: Sequence[slice],
    below: Collection[int] = (),
) -> CroppedMask:
    """The mask of a finding after somebody painted: what carries its number now, and what others cover as before.

    A voxel under another finding stays part of the mask where that finding lay there before; where it was newly
    painted over, it is lost.

    Args:
        picture: (Z, Y, X) label numbers as they are on the canvas.
        own: The masks as they were before, by number.
        painted: The box, along each axis, in which there were strokes with or over this number. Nothing is looked
            for outside of it and of the mask as it was.
        below: Numbers that are not seen, which lie under all others.
    """
    before = own[number]
    start = [min(a.start, b.start) for a, b in zip(before.box, painted, strict=True)]
    stop = [max(a.stop, b.stop) for a, b in zip(before.box, painted, strict=True)]
    shown = picture[tuple(map(slice, start, stop))] == number
    covered = np.zeros(before.crop.shape, bool)
    under = picture[before.box]
    for other in (int(n) for n in np.unique(under) if n not in (0, number)):
        if other in own and lies_on(other, number, own, below):
            covered |= before.crop & (under == other) & inside(own[other], before)
    shown[tuple(slice(b.start - o, b.stop - o) for b, o in zip(before.box, start, strict=True))] |= covered
    cut = CroppedMask.from_full(shown)
    return CroppedMask(cut.crop, tuple(a + b for a, b in zip(cut.offset, start, strict=True)), picture.shape)


def same_mask(first: CroppedMask, second: CroppedMask) -> bool:
    """Whether two masks have the same voxels; their boxes may be wider than needed."""
    return first.count == second.count and bool(np.array_equal(inside(first, second), second.crop))


def lies_on(upper: int, lower: int, own: Mapping[int, CroppedMask], below: Collection[int]) -> bool:
    """Whether one finding is painted over another one: the seen, then the smaller, or of equal ones the later."""
    return (upper in below, own[upper].count, -upper) < (lower in below, own[lower].count, -lower)
