"""What a picture surely does not show, and the part of the body that it surely shows.

Worked out when a record is read, from the parts of the body of its data set, of its annotated targets and of its
modality, and from the word of its source that it is a normal one. Where none of them tells, nothing is sure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from unibiomed_core import vocabulary

from .body_parts import body_of, cannot_show, foreign_targets
from .records import Record

NORMAL = "normal"
"""Class of a picture in which its source found nothing wrong."""

_TRUNK = frozenset({"neck", "chest", "abdomen", "pelvis", "heart", "spine"})
"""Parts of the body whose scans go on into the next, so that a slice may show another part than its data set's."""

_SECTIONS = frozenset({"ct", "mri", "pet"})

_PARTS_OF_BRAIN_TUMOUR = {"tumour core", "enhancing tumour", "peritumoural oedema"}


@dataclass(frozen=True, slots=True)
class Negatives:
    """Targets that a picture surely does not show.

    Args:
        near: Of the part of the body shown: annotated in the source and not there, or findings in a normal picture.
        far: Of the picture's modality, but of parts of the body that it does not show.
        other: Of other modalities and of parts of the body that it does not show.
    """

    near: tuple[str, ...]
    far: tuple[str, ...]
    other: tuple[str, ...]

    def all(self) -> frozenset[str]:
        return frozenset((*self.near, *self.far, *self.other))


def negatives(record: Record) -> Negatives:
    """What a picture surely does not show; targets of no vocabulary only where the source says that they are absent."""
    shown = tuple(r.target for r in record.regions)
    return _negatives(record.dataset, record.modality, shown, record.absent, record.foreign, is_normal(record))


@lru_cache(maxsize=4096)
def _negatives(
    dataset: str, modality: str, shown: tuple[str, ...], absent: tuple[str, ...], foreign: tuple[str, ...], normal: bool
) -> Negatives:
    body, told = body_of(dataset, modality), frozenset((*shown, *absent))
    parts = frozenset(body).union(*(vocabulary.parts_of(name)[:1] for name in told)) if body else _any_part(shown)
    kinds = vocabulary.for_modality(modality)
    healthy = (t.name for t in kinds if normal and t.kind == "finding" and not parts.isdisjoint(t.parts))
    near = dict.fromkeys((*absent, *healthy))
    # What was written beside a record came of settings that nothing else keeps, where the data set has no row here.
    far = dict.fromkeys((*(() if body else foreign), *foreign_targets(modality, told, parts)))
    others = (t for t in vocabulary.targets().values() if modality and modality not in t.contexts)
    return Negatives(
        tuple(n for n in near if n not in shown),
        tuple(n for n in far if n not in told and n not in near),
        tuple(t.name for t in others if t.name not in told and cannot_show(parts, t)),
    )


def part_of(record: Record) -> str:
    """The part of the body that a picture surely shows, of ``vocabulary.PARTS``; empty where it is not sure.

    A data set of one part tells it for all of its pictures. Sections of the trunk go on into the next part, so there
    the annotated targets of the section itself have to agree.
    """
    body = body_of(record.dataset, record.modality)
    kinds = [parts for r in record.regions if (parts := vocabulary.parts_of(r.target))]
    common = frozenset(kinds[0]).intersection(*kinds[1:]) if kinds else frozenset[str]()
    if len(body) == 1 and not (record.modality in _SECTIONS and body[0] in _TRUNK):
        return body[0]
    if len(common) == 1:
        (only,) = common
        return only if not body or only in body else ""
    if len(body) != 1 or body[0] not in common:
        return ""
    # A picture was picked for what it shows; a slice of a volume was not.
    return body[0] if not record.volume or all(parts[0] == body[0] for parts in kinds) else ""


def is_normal(record: Record) -> bool:
    """Whether the source calls the picture a normal one."""
    return record.image_class.strip().casefold() == NORMAL


def findings_told(record: Record) -> bool:
    """Whether a finding that is not annotated is not there: its source annotated all, or calls the picture normal."""
    return record.findings_known or is_normal(record)


def findings(record: Record) -> list[str]:
    """What is wrong in a picture: its regions that are findings. Parts of a brain tumour are not findings beside it."""
    known = vocabulary.targets()
    names = [r.target for r in record.regions if r.target not in known or known[r.target].kind == "finding"]
    return [n for n in names if n not in _PARTS_OF_BRAIN_TUMOUR or "brain tumour" not in names]


def nothing_found(record: Record) -> bool:
    """Whether a picture surely shows nothing wrong."""
    return findings_told(record) and not findings(record)


def all_told(record: Record) -> bool:
    """Whether of every target that a picture of its kind could show it is known if it is there.

    Only then is a spot without any of them surely without a name.
    """
    sure = {*(r.target for r in record.regions), *negatives(record).all()}
    kinds = vocabulary.for_modality(record.modality)
    return bool(body_of(record.dataset, record.modality) and kinds) and all(t.name in sure for t in kinds)


def _any_part(targets: Iterable[str]) -> frozenset[str]:
    """All parts of the body that pictures of the targets may show; a scan of an unknown part shows one of them."""
    return frozenset(part for name in targets for part in vocabulary.parts_of(name))
