"""What an image shows, asked of the model before anything is searched: its modality, and the part of the body.

A model with a first look (``model/scene.py``) tells both by it. Any other is asked closed questions: every answer is
scored, none is written. What the file or the user says is not asked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from unibiomed_core import vocabulary
from unibiomed_core.engine.predictor import Predictor
from unibiomed_core.engine.volume.plans import spread
from unibiomed_core.errors import ReadError
from unibiomed_core.modalities import MODALITIES, Window, choose_window
from unibiomed_core.types import Band, Note, Plane, Prompt, Region, Shown, Volume

LEAST_MODALITY = 0.6
"""A modality with a smaller share is undecided; the user is asked then. Chosen on held-out training patients."""

CONTRADICTS = 0.95
"""Another modality than file or user say is told with at least this share; those patients had no wrong one so sure."""

LIKELY_PART = 0.15
"""What belongs to a part of the body with at least this share is searched."""

SLICES_PER_LOOK = 12
FEWEST_LOOKS, MOST_LOOKS = 3, 9
"""So many slices of a volume are asked for the part of the body, spread over it."""

SMOOTHED_FROM = 5

OFFERED = 3
"""So many modalities are offered where it is undecided."""


def with_modality(predictor: Predictor, volume: Volume) -> Volume:
    """A picture whose modality nobody told with the one that the model sees; any other as it is.

    Raises:
        ReadError: No modality is likely enough; the likely ones are offered in their order.
    """
    if volume.modality:
        return volume
    shares = _ordered(_modality_shares(predictor, volume).items())
    best, share = shares[0]
    if share < LEAST_MODALITY:
        likely = ", ".join(f"{name} ({value:.2f})" for name, value in shares[:OFFERED])
        raise ReadError(
            "Modality not told",
            f"neither the file '{volume.name}' tells its modality nor can the model: {likely}",
            f"one of {', '.join(name for name, _ in shares)}",
            command="Give it with --modality.",
            code="modality_not_told",
            values={"likely": [name for name, _ in shares[:OFFERED]]},
        )
    return replace(volume, modality=best, modality_by="model", modality_shares=shares)


def recognise(
    predictor: Predictor,
    volume: Volume,
    plane: Plane,
    window: Window,
    indices: Sequence[int],
) -> Shown:
    """The parts of the body that the slices show, in bands along a volume.

    Args:
        indices: Canonical indices of the slices that may be examined, ascending.
    """
    count = volume.slice_count(plane)
    most = 1 if volume.is_2d else min(MOST_LOOKS, max(FEWEST_LOOKS, len(indices) // SLICES_PER_LOOK))
    looks = spread(indices, most)
    told = [_part_shares(predictor, volume, plane, window, index) for index in looks]
    bands = _bands(looks, _smoothed(told), count)
    shares = volume.modality_shares or _first_modality(predictor, volume, plane, window, looks)
    return Shown(volume.modality, volume.modality_by, shares, bands, tuple(looks))


def contradiction(shown: Shown) -> Note | None:
    """What has to be said where the pictures surely look like another modality than the file or the user say."""
    if shown.modality_by == "model" or not shown.modality_shares:
        return None
    seen, share = shown.modality_shares[0]
    if seen == shown.modality or share < CONTRADICTS:
        return None
    said, looks_like = MODALITIES[shown.modality].label, MODALITIES[seen].label
    who = "user" if shown.modality_by == "user" else "file"
    text = (
        f"The {who} says {said}, but this looks like {looks_like} ({share:.2f}); if so, nothing here can be relied on."
    )
    return Note("modality_doubted", text, {"said": shown.modality, "seen": seen, "share": share})


def likely_parts(band: Band) -> frozenset[str]:
    """The parts of the body whose targets are searched in a band; empty where nobody can tell, and all may be."""
    if not band.parts:
        return frozenset()
    return frozenset([band.parts[0][0], *(name for name, share in band.parts if share >= LIKELY_PART)])


def slices_of(target: str, modality: str, shown: Shown, indices: Iterable[int]) -> tuple[int, ...]:
    """The slices that show a part of the body in which a target can be."""
    wanted = []
    parts = {band: likely_parts(band) for band in shown.bands}
    for index in indices:
        band = next((b for b in shown.bands if b.slice_first <= index <= b.slice_last), None)
        if band is None or vocabulary.can_be_shown(target, modality, parts[band]):
            wanted.append(index)
    return tuple(wanted)


def _modality_shares(predictor: Predictor, volume: Volume) -> Mapping[str, float]:
    """Modality -> share."""
    # An 8-bit picture goes in as it is, whatever it shows; other values by their percentiles.
    window = choose_window(replace(volume, modality="xray"))
    piece = volume.slice(volume.slice_count() // 2)
    if look := predictor.first_look(piece, window):
        return look.modality
    ((prediction,),) = predictor.predict([piece], [Prompt("modality")], window)
    return dict(prediction.shares)


def _first_modality(
    predictor: Predictor, volume: Volume, plane: Plane, window: Window, looks: Sequence[int]
) -> tuple[tuple[str, float], ...]:
    """Modality -> share, by a first look at the middle one of some slices; empty for a model that has none."""
    look = predictor.first_look(volume.slice(looks[len(looks) // 2], plane), window)
    return _ordered(look.modality.items()) if look else ()


def _part_shares(predictor: Predictor, volume: Volume, plane: Plane, window: Window, index: int) -> dict[str, float]:
    """Part of the body -> share, of one slice: the names that its whole could have, by the parts they belong to.

    A target that several parts show counts for its own twice as much as for each of the others.
    """
    piece = volume.slice(index, plane)
    if look := predictor.first_look(piece, window):
        return dict(look.part)
    height, width = piece.shape
    if not predictor.config.targets:
        ((prediction,),) = predictor.predict([piece], [Prompt("part")], window)
        return dict(prediction.shares)
    prompt = Prompt("roi_class", region=Region(0, 0, width - 1, height - 1, plane, index))
    ((prediction,),) = predictor.predict([piece], [prompt], window)
    shares: dict[str, float] = {}
    for name, share in prediction.shares:
        parts = vocabulary.parts_of(name)
        weights = [2.0, *[1.0] * (len(parts) - 1)]
        for part, weight in zip(parts, weights, strict=False):
            shares[part] = shares.get(part, 0.0) + share * weight / sum(weights)
    return shares


def _smoothed(told: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Each look together with its neighbours, weights 1, 2, 1; few looks are too far apart to show the same."""
    if len(told) < SMOOTHED_FROM:
        return [dict(shares) for shares in told]
    smooth = []
    for i in range(len(told)):
        near = [(told[i], 2.0), *((told[j], 1.0) for j in (i - 1, i + 1) if 0 <= j < len(told))]
        total = sum(weight for _, weight in near)
        names = dict.fromkeys(name for shares, _ in near for name in shares)
        smooth.append({name: sum(w * shares.get(name, 0.0) for shares, w in near) / total for name in names})
    return smooth


def _bands(looks: Sequence[int], told: Sequence[Mapping[str, float]], count: int) -> tuple[Band, ...]:
    """Neighbouring looks with the same likeliest part in one band each; a border lies midway between two looks."""
    groups: list[list[int]] = []
    for i in range(len(looks)):
        if groups and _best(told[groups[-1][-1]]) == _best(told[i]):
            groups[-1].append(i)
        else:
            groups.append([i])
    bands = []
    first = 0
    for number, group in enumerate(groups):
        is_last = number == len(groups) - 1
        last = count - 1 if is_last else (looks[group[-1]] + looks[groups[number + 1][0]]) // 2
        names = dict.fromkeys(name for i in group for name in told[i])
        mean = {name: float(np.mean([told[i].get(name, 0.0) for i in group])) for name in names}
        bands.append(Band(first, last, _ordered(mean.items())))
        first = last + 1
    return tuple(bands)


def _best(shares: Mapping[str, float]) -> str:
    return max(shares, key=shares.__getitem__, default="")


def _ordered(shares: Collection[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    """Likeliest first; shares so small that nobody reads them are left out."""
    order = sorted(shares, key=lambda item: -item[1])
    return tuple((name, float(share)) for n, (name, share) in enumerate(order) if share >= 0.01 or n == 0)
