"""From what people write for a target to a target that a model has; what is unknown comes with what looks like it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from unibiomed_core import modalities
from unibiomed_core.errors import PromptError
from unibiomed_core.types import Caution
from unibiomed_core.vocabulary import find, normalise, targets

SHOWN_TARGETS = 12
"""So many targets are named where none looks like what was asked for."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A name that a model cannot be asked for.

    Args:
        name: As it was given.
        code: "not_in_vocabulary"; or "not_learnt" where the vocabulary has it and the model's targets have not.
        nearest: What can be asked for and looks alike, the nearest first.
    """

    name: str
    code: Literal["not_in_vocabulary", "not_learnt"]
    nearest: tuple[str, ...]


def lookup(name: str, modality: str, learnt: Mapping[str, Sequence[str]]) -> tuple[str, str] | Unknown:
    """(canonical name, phrase of the prompt) of a target that a person named: by synonym, in the plural, with a place.

    A model trained on a list of targets takes those only, also under names of its own that the vocabulary lacks; any
    other takes free text, and the vocabulary just supplies the phrase where it knows the name.

    Args:
        learnt: Modality -> targets that the model was trained on; empty for a model that takes any text.
    """
    entry = find(name, modality)
    if entry is None and normalise(name).endswith("s"):
        entry = find(normalise(name)[:-1], modality)
    if not learnt:
        return (entry.name, entry.phrase(modality)) if entry else (name.strip(), name.strip())
    known = learnt.get(modality, ())
    own = _own_name(name, known)
    if own and (entry is None or entry.name not in known):
        return own, f"{own} in {modalities.modality(modality).label}"
    if entry is not None and entry.name in known:
        return entry.name, entry.phrase(modality)
    if entry is None:
        return Unknown(name, "not_in_vocabulary", nearest(name, known))
    return Unknown(name, "not_learnt", nearest(entry.name, known))


def unknown_error(unknown: Sequence[Unknown], model: str, modality: str, known: Sequence[str]) -> PromptError:
    """The error for targets none of which a model can be asked for.

    Args:
        model: Its name.
        known: The targets that it has for the modality.
    """
    listed = ", ".join(f"'{one.name[:80]}'" for one in unknown)
    label = modalities.modality(modality).label
    near = tuple(dict.fromkeys(name for one in unknown for name in one.nearest))
    if not known:
        expected = f"another modality: the model has no targets for {label}"
    elif near:
        expected = f"one of its targets, nearest: {', '.join(near)}"
    else:
        expected = f"one of its targets: {', '.join(known[:SHOWN_TARGETS])}" + ("\u2026" * (len(known) > SHOWN_TARGETS))
    if any(one.code == "not_in_vocabulary" for one in unknown):
        title, found = "Unknown target", f"{listed} {'is' if len(unknown) == 1 else 'are'} not in the vocabulary"
    else:
        title, found = "Target not learnt", f"the model '{model}' was not trained on {listed} in {label}"
    return PromptError(title, found, expected, command="'unibiomed models' lists what each model was trained on.")


def _own_name(name: str, learnt: Sequence[str]) -> str:
    """The name among a model's targets that is written alike, with or without "in" and a place; "" where none is."""
    wanted = normalise(name)
    spelt = {normalise(target): target for target in learnt}
    return spelt.get(wanted) or spelt.get(wanted.rpartition(" in ")[0], "")


def nearest(name: str, among: Iterable[str] | None = None, count: int = 4) -> tuple[str, ...]:
    """The names that look most like ``name``, those first that share a whole word with it; none where none is near.

    Args:
        among: Canonical names to choose from; None for all.
    """
    wanted = normalise(name)
    pool = spellings(targets() if among is None else among)
    shared = [spelt for spelt in pool if set(spelt.split()) & set(wanted.split())]
    close = difflib.get_close_matches(wanted, pool, n=count * 2, cutoff=0.5)
    return tuple(dict.fromkeys(pool[spelt] for spelt in (*sorted(shared, key=len), *close)))[:count]


def spellings(names: Iterable[str]) -> dict[str, str]:
    """All that may be written for some names -> the name: itself and its synonyms, as :func:`normalise` leaves them."""
    found: dict[str, str] = {}
    for name in names:
        entry = targets().get(name)
        for spelt in (name, *(entry.synonyms if entry else ())):
            found.setdefault(normalise(spelt), name)
    return found


MOST_SUBJECTS = 4
"""Further subjects of a question are not named."""

_PLAIN_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a about above all also an and any anything appear appears are around as at be been behind below beside between
        both by can contain contains could depict depicted depicts describe detect detected did do does else evidence
        evident find finding findings following for found from give given has have here how i identify if image images
        in indicate indicated indicates inside is it its kind list look looks many me more most much name near next no
        nor normal not observe observed of on one or organ organs other out outside part patient picture please present
        radiograph region regions scan see seem seems seen show showing shown shows side sign signs slice some something
        structure structures suggest suggests tell than that the their there these they this those to type under us
        view visible was we were what when where whether which who why with within would yes you your
        abnormal abnormality abnormalities anomaly anomalies disease diseases pathology
        ct mr mri pet x ray xray ultrasound fundus dermoscopy endoscopy oct left right upper lower
        """,
    )
)
"""Words of questions that name nothing to look for."""


def caution(question: str, modality: str, learnt: Mapping[str, Sequence[str]]) -> Caution | None:
    """Whether a question is about something that a model has not learnt; by the words of the question alone.

    Args:
        learnt: Modality -> targets that the model was trained on; empty for a model whose subjects are not known.
    """
    if not learnt:
        return None
    spelt = sorted(spellings(learnt.get(modality, ())), key=len, reverse=True)
    known = "|".join(re.escape(name) for name in spelt)
    text = normalise(question)
    rest = re.sub(rf"\b(?:{known})s?\b", " , ", text) if known else text
    subjects: list[str] = []
    for piece in re.split(r"[^\w\s']+", rest):
        run: list[str] = []
        for word in (*piece.split(), ""):
            if word and word not in _PLAIN_WORDS:
                run.append(word)
            elif run:
                subjects.append(" ".join(run))
                run = []
    if subjects:
        return Caution("subject_not_learnt", tuple(dict.fromkeys(subjects))[:MOST_SUBJECTS])
    return Caution("no_target_named") if rest == text else None
