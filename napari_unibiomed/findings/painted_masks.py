"""The masks of findings as the canvas shows them, whoever changed the labels: napari's tools, undo, another plugin."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_unibiomed.canvas.painting import inside
from napari_unibiomed.canvas.placement import KEY
from napari_unibiomed.findings.edits import lies_on, mask_on_canvas, same_mask
from unibiomed_core.errors import WriteError
from unibiomed_core.types import CroppedMask

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_unibiomed.canvas.layers import LayerGateway
    from napari_unibiomed.findings.model import FindingsModel
    from napari_unibiomed.jobs import Run

Box = tuple[slice, ...]


def own_masks(model: FindingsModel) -> dict[int, CroppedMask]:
    """Number -> canonical 3D mask of every row that has one."""
    return {row.number: row.finding.mask for row in model.rows if row.finding is not None}


def fits(layer: Labels) -> bool:
    """Whether the layer still has the grid of its run; a user may give it any other array."""
    return tuple(layer.data.shape) == layer.metadata[KEY]["shape"]


def canonical_picture(layer: Labels) -> NDArray[Any]:
    """(Z, Y, X) label numbers as the layer holds them now; a view where its array is numpy's."""
    return np.asarray(layer.metadata[KEY]["placement"].to_canonical(np.asarray(layer.data)))


def strangers_in(picture: NDArray[Any], known: Collection[int], touched: Mapping[int, Box] | None) -> list[int]:
    """Numbers on the canvas that no row has, in the touched boxes or, without them, anywhere."""
    if touched is not None:
        return [n for n, box in sorted(touched.items()) if n not in known and (picture[box] == n).any()]
    return [int(n) for n in np.unique(picture[~np.isin(picture, [0, *known])])]


def everywhere(picture: NDArray[Any], own: Mapping[int, CroppedMask]) -> dict[int, Box]:
    """The box of every finding's number on the canvas, from one look at all of it."""
    from scipy.ndimage import find_objects

    highest = max(own, default=0)
    # Numbers above those of the findings are the user's own, and may be far above.
    numbers = picture if picture.dtype.kind == "u" else np.where((picture > 0) & (picture <= highest), picture, 0)
    places = find_objects(numbers, max_label=highest) if highest else []
    there = {number: place for number, place in enumerate(places, start=1) if place is not None}
    return {number: there.get(number, mask.box) for number, mask in own.items()}


def repainted(
    picture: NDArray[Any],
    own: Mapping[int, CroppedMask],
    touched: Mapping[int, Box],
    below: Collection[int],
    rejected: Collection[int],
) -> dict[int, CroppedMask]:
    """The findings whose masks are no longer what the canvas shows, with their masks as it shows them.

    Painted in the order of exports, the masks that come out give the canvas.

    Args:
        picture: (Z, Y, X) label numbers as they are on the canvas.
        own: The masks as they were before, by number.
        touched: Number -> box in which it may have gained or lost voxels.
        below: Numbers that are not seen, which lie under all others.
        rejected: Numbers that are left out; one of them of which nothing is seen keeps its mask, to come back with.
    """
    asked = {n: box for n, box in touched.items() if n in own}
    # What lies under an erased voxel does not come up there, so it loses it too.
    asked |= {n: box for box in touched.values() for n in own.keys() - asked.keys() if _meet(own[n].box, box)}
    erased = {n for n, box in asked.items() if n in rejected and not _shows(picture, n, (box, own[n].box))}
    now = {n: mask_on_canvas(n, picture, own, box, below) for n, box in asked.items() if n not in erased}
    now = {n: mask for n, mask in now.items() if not same_mask(mask, own[n])}
    return _settled(picture, own, now, below)


def _meet(first: Box, second: Box) -> bool:
    return all(max(a.start, b.start) < min(a.stop, b.stop) for a, b in zip(first, second, strict=True))


def _shows(picture: NDArray[Any], number: int, boxes: Sequence[Box]) -> bool:
    return any(bool((picture[box] == number).any()) for box in boxes)


def _settled(
    picture: NDArray[Any], own: Mapping[int, CroppedMask], changed: Mapping[int, CroppedMask], below: Collection[int]
) -> dict[int, CroppedMask]:
    """Where findings of other sizes lie the other way round now, the one that is not seen loses what they share.

    Smaller ones lie on larger ones; a stroke can make the smaller one the larger one, and the canvas is not to change
    under the user's hand.
    """
    masks: dict[int, CroppedMask] = {**own, **changed}
    result = dict(changed)
    waiting = list(changed)
    while waiting:
        number = waiting.pop()
        for other in masks:
            if other == number or lies_on(number, other, own, below) == lies_on(number, other, masks, below):
                continue
            for loser, winner in ((number, other), (other, number)):
                less = _without(masks[loser], masks[winner], picture, winner)
                if less is not None:
                    masks[loser] = result[loser] = less
                    waiting.append(loser)
    return result


def _without(loser: CroppedMask, winner: CroppedMask, picture: NDArray[Any], number: int) -> CroppedMask | None:
    """A mask without what it shares with another one where the canvas shows that one; None where nothing is lost."""
    shared = loser.crop & inside(winner, loser) & (picture[loser.box] == number)
    if not shared.any():
        return None
    cut = CroppedMask.from_full(loser.crop & ~shared)
    return CroppedMask(cut.crop, tuple(a + b for a, b in zip(cut.offset, loser.offset, strict=True)), loser.shape)


def measure(layer: Labels, model: FindingsModel, touched: Mapping[int, Box] | None, below: Collection[int]) -> set[int]:
    """Measure the findings that the layer shows otherwise than the model has them; returns their numbers.

    Args:
        layer: Of the run that the model shows, on the run's grid.
        touched: Number -> canonical box where it may have changed; None looks at the whole layer.
        below: Numbers that the layer hides.
    """
    about, own, picture = layer.metadata[KEY], own_masks(model), canonical_picture(layer)
    rejected = {row.number for row in model.rows if row.rejected}
    boxes = everywhere(picture, own) if touched is None else touched
    changed = repainted(picture, own, boxes, below, rejected)
    if changed:
        with model.group():
            # The first one gives the step its name for undo: what is gone says more than what was under it.
            for number, mask in sorted(changed.items(), key=lambda item: item[1].count > 0):
                model.remeasure(number, mask)
        # An erased finding keeps its mask, which goes under the others with the next painting.
        about["masks"] |= {n: mask for n, mask in own_masks(model).items() if n in changed}
    return set(changed)


def settle(gateway: LayerGateway, model: FindingsModel, run: Run) -> Sequence[int]:
    """Before a run is written: bring its rows in line with its layer, however that was changed.

    Returns:
        Numbers on the layer that are no findings and are not written.

    Raises:
        WriteError: The layer was given an array of another shape, so that what it shows cannot be written.
    """
    layer = next((layer for layer in gateway.ours("findings") if layer.metadata[KEY]["run"] is run), None)
    if layer is None or run.report is None or layer.metadata[KEY].get("report") is not run.report:
        return ()
    if not fits(layer):
        raise WriteError(
            "Labels on another grid",
            f"'{layer.name}' was given an array of shape {tuple(layer.data.shape)}",
            f"the shape {layer.metadata[KEY]['shape']} of its image",
            "Put the labels back, or remove the layer to write the findings as they were measured last.",
        )
    if model.run is not run:
        model.set_run(run)
    measure(layer, model, None, gateway.hidden(layer))
    return strangers_in(canonical_picture(layer), own_masks(model), None)
