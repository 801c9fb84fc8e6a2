"""Which parts of the body the pictures of a data set show, and with them which targets cannot be there.

``body_parts.json`` beside this file names the data sets of each part. A data set that stands nowhere in it shows any.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from unibiomed_core import vocabulary
from unibiomed_core.vocabulary import Target

_BESIDE: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "head": frozenset({"neck", "spine"}),
        "neck": frozenset({"head", "chest", "spine"}),
        "chest": frozenset({"neck", "heart", "abdomen", "spine"}),
        "heart": frozenset({"chest", "abdomen", "spine"}),
        "abdomen": frozenset({"chest", "heart", "pelvis", "spine"}),
        "pelvis": frozenset({"abdomen", "limb"}),
        "spine": frozenset({"neck", "chest", "abdomen", "pelvis"}),
        "limb": frozenset({"pelvis"}),
    }
)
"""Parts of the body that a scan of one may show, too; their targets are no sure negatives there."""

_ANYWHERE = frozenset({"lesion"})
"""Findings by a name so wide that no part of the body is surely without one."""


_ONE_PART = {"fundus": "eye", "dermoscopy": "skin"}
"""Modalities that are made of one part of the body alone."""


def body_of(dataset: str, modality: str = "") -> tuple[str, ...]:
    """Parts of the body that the pictures of a data set show, of ``vocabulary.PARTS``; empty where nobody says."""
    return _bodies().get(dataset) or ((_ONE_PART[modality],) if modality in _ONE_PART else ())


@cache
def _bodies() -> Mapping[str, tuple[str, ...]]:
    rows = json.loads(files(__package__).joinpath("body_parts.json").read_text("utf-8"))
    return MappingProxyType({name: tuple(row["parts"]) for row in rows for name in row["data_sets"]})


def cannot_show(parts: Collection[str], target: Target) -> bool:
    """Whether pictures of these parts of the body, one or more, surely show nothing of a target."""
    if not parts or target.name in _ANYWHERE or not set(parts).isdisjoint(target.parts):
        return False
    beside = frozenset[str]().union(*(_BESIDE.get(part, ()) for part in parts))
    # Anatomy at the edge of a neighbouring part comes into a scan; a finding would have to lie where it belongs.
    return beside.isdisjoint(target.parts[:1] if target.kind == "finding" else target.parts)


def foreign_targets(modality: str, targets: Collection[str], body: Collection[str]) -> tuple[str, ...]:
    """Targets of a modality that cannot be in a picture of these parts of the body; none where no part is known.

    Args:
        targets: What the source annotates; each brings its own part of the body.
        body: Of ``vocabulary.PARTS``.
    """
    if not body:
        return ()
    parts = frozenset(body).union(*(vocabulary.parts_of(name)[:1] for name in targets))
    found = (t.name for t in vocabulary.for_modality(modality) if cannot_show(parts, t))
    return tuple(name for name in found if name not in targets)
