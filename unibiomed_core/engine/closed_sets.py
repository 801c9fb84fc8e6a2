"""Questions whose answers can be listed: the model is asked how likely each is, and writes none.

The score of an answer is the sum of the log-probabilities of its tokens, end mark included. With the end mark every
answer is a whole one, so these are probabilities of exclusive events and their order is what the model says of them. A
mean over tokens would favour long names: a tail that follows by itself ("in abdomen ct") adds near-certain tokens.
Greedy writing takes the likeliest token at each place instead; it may leave the list, and may take a first token that
no likely answer goes on from.
"""

from __future__ import annotations

from unibiomed_core import modalities, vocabulary
from unibiomed_core.model.config import UniBiomedConfig
from unibiomed_core.tasks import END
from unibiomed_core.types import Prompt

CLOSED_TASKS = frozenset({"roi_class"})
"""Tasks that are answered with the name of one of the model's targets."""


def choices(prompt: Prompt, modality: str, config: UniBiomedConfig) -> tuple[str, ...]:
    """Every answer that a closed question can have, as the model was taught to word it, with the end mark.

    Returns:
        Empty where the model writes: another task, the user's own question or answer, exact prompts, and models that
        list no targets for the modality.
    """
    if prompt.task not in CLOSED_TASKS or prompt.exact or prompt.question or prompt.answer is not None:
        return ()
    return tuple(class_answer(name, modality) + END for name in config.targets.get(modality, ()))


def yes_or_no(written: str) -> tuple[str, ...]:
    """The two answers that a written yes or no could have been, in its own letters, itself first; empty for others."""
    given = written.removesuffix(END).strip()
    word = given.rstrip(".")
    other = {"yes": "no", "no": "yes"}.get(word.lower())
    if other is None:
        return ()
    ending = given[len(word) :]
    return f"{given}{END}", f"{other.capitalize() if word[:1].isupper() else other}{ending}{END}"


def class_answer(target: str, modality: str) -> str:
    """A target as an answer, in lower case: "liver in abdomen ct"."""
    entry = vocabulary.targets().get(target)
    return (entry.phrase(modality) if entry else f"{target} in {modalities.modality(modality).label}").lower()
