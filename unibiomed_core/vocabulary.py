"""Targets by name: synonyms, side and code. The data stands in ``vocabulary.json`` beside this file."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Literal

Counted = Literal["one", "pair", "several", "population", "network"]

PARTS = (
    "head", "neck", "chest", "breast", "abdomen", "pelvis", "spine", "limb",
    "heart", "eye", "skin", "bowel", "blood", "tissue",
)  # fmt: skip
"""Parts of the body that a picture can show; "bowel" is its lumen, "blood" a smear and "tissue" a section."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something that can be named and segmented.

    Args:
        name: Canonical name, unique.
        kind: "finding", "anatomy" or "object" (tubes and lines).
        counted: How a person counts it: "one" (an organ), "pair" (one on each side), "several" (each on its own),
            "population" (cells and glands: how many, how dense) or "network" (vessels: how much, how long).
        contexts: Modality name -> how a prompt places it, e.g. "abdomen CT".
        parts: Of ``PARTS``: every part of the body whose pictures show it, its own first.
        side: "left" or "right" where the name says it, else None.
        snomed: SNOMED CT concept id where it is certain, else None.
        within: Targets that it is a part or a kind of, next ones only.
    """

    name: str
    kind: str
    counted: Counted
    contexts: Mapping[str, str]
    parts: tuple[str, ...]
    synonyms: tuple[str, ...]
    side: str | None
    snomed: str | None
    within: tuple[str, ...] = ()

    def phrase(self, modality: str) -> str:
        """The phrase of a prompt, e.g. "liver in abdomen CT"; the bare name where the modality is not its own."""
        context = self.contexts.get(modality)
        return f"{self.name} in {context}" if context else self.name


@cache
def targets() -> Mapping[str, Target]:
    """All targets by canonical name, in the order of the file."""
    rows = json.loads(files("unibiomed_core").joinpath("vocabulary.json").read_text("utf-8"))["targets"]
    return MappingProxyType(
        {
            r["name"]: Target(
                r["name"],
                r["kind"],
                r["counted"],
                MappingProxyType(r["modalities"]),
                tuple(r["parts"]),
                tuple(r["synonyms"]),
                r["side"],
                r["snomed"],
                tuple(r.get("within", ())),
            )
            for r in rows
        }
    )


def for_modality(modality: str) -> tuple[Target, ...]:
    """The targets that occur in a modality."""
    return tuple(t for t in targets().values() if modality in t.contexts)


def find(name: str, modality: str = "") -> Target | None:
    """The target of a name, phrase or synonym, in any letter case; None where there is none.

    Names win over synonyms, and targets of ``modality`` win over others.
    """
    wanted = normalise(name)
    pool = sorted(targets().values(), key=lambda t: modality not in t.contexts)
    for target in pool:
        if wanted == normalise(target.name):
            return target
    for target in pool:
        if wanted in {normalise(s) for s in target.synonyms}:
            return target
    head = re.split(r"\s+in\s+", wanted, maxsplit=1)[0]
    if head != wanted:
        return find(head, modality)
    return find(wanted[:-1], modality) if len(wanted) > 3 and wanted.endswith("s") else None


def parts_of(name: str) -> tuple[str, ...]:
    """The parts of the body whose pictures show a target, its own first; empty for a name that is not canonical."""
    target = targets().get(name)
    return target.parts if target else ()


@cache
def wholes(name: str) -> frozenset[str]:
    """All targets that the target of a canonical name is a part or a kind of, near and far."""
    next_ones = targets()[name].within
    return frozenset(next_ones).union(*(wholes(one) for one in next_ones))


_SPELLINGS = (
    ("tumor", "tumour"), ("edema", "oedema"), ("ooedema", "oedema"), ("hemorrhage", "haemorrhage"),
    ("ischemi", "ischaemi"), ("esophag", "oesophag"), ("ooesophag", "oesophag"), ("disk", "disc"), ("-", " "),
)  # fmt: skip
"""American and British spelling, in the order in which they are replaced."""


def normalise(name: str) -> str:
    """Lower case, single spaces, no final punctuation, no closing remark in brackets, one spelling.

    Data sets explain their labels in brackets: "lung fields (both lungs)" is "lung fields".
    """
    text = re.sub(r"\s+", " ", name.strip().lower()).rstrip(".?! ")
    text = re.sub(r"(?<=\S) \([^()]*\)$", "", text)
    for american, british in _SPELLINGS:
        text = text.replace(american, british)
    return text


def kind_of(name: str, modality: str) -> str:
    """ "finding", "anatomy" or "object" of a name; what the vocabulary does not know may be a finding."""
    entry = find(name, modality)
    return entry.kind if entry else "finding"


def can_be_shown(name: str, modality: str, parts: Collection[str] = ()) -> bool:
    """Whether pictures of a modality and of some parts of the body can show a target.

    Args:
        name: Canonical, or a name that the vocabulary does not know, which anything may show.
        parts: None where these are not known: any.
    """
    entry = targets().get(name)
    if entry is None:
        return True
    return modality in entry.contexts and (not parts or any(part in entry.parts for part in parts))
