"""The tasks: instruction wordings, shape of the answer, and the parser that pairs phrases with ``[SEG]`` tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from unibiomed_core.errors import PromptError
from unibiomed_core.modalities import MODALITIES
from unibiomed_core.vocabulary import PARTS, normalise, targets

SEG = "[SEG]"
PHRASE_OPEN, PHRASE_CLOSE = "<p>", "</p>"
IMAGE = "<image>"
END = "<|end|>"
NO_FINDINGS = "no findings"

MAX_PROMPT_CHARACTERS = 4000


@dataclass(frozen=True, slots=True)
class Task:
    """One task.

    Args:
        name: Key used in options, records and metrics.
        label: How a menu names it.
        instruction: The published wording; ``{target}`` is filled in; ``<image>`` stands where the picture goes.
        known_answer: The answer's wording where it is known beforehand, so that it is read and not written.
        gives_masks: Whether the answer carries ``[SEG]``.
        draws_box: Whether the region is drawn on the picture.
        example_answer: The shape of an answer, as in training.
    """

    name: str
    label: str
    instruction: str
    known_answer: str | None
    gives_masks: bool
    draws_box: bool
    example_answer: str


TASKS: Mapping[str, Task] = MappingProxyType(
    {
        t.name: t
        for t in (
            Task("segment", "Segment", "<image>Please segment {target}.", "It is [SEG].", True, False, "It is [SEG]."),
            Task(
                "disease",
                "Recognise disease",
                "<image>Can we observe any signs of abnormality? Please respond with interleaved segmentation masks "
                "for the corresponding parts.",
                None,
                True,
                False,
                "It is [SEG]. liver tumor.",
            ),
            Task(
                "report",
                "Grounded report",
                "<image>Could you describe the abnormality in this image? Please highlight the region with interleaved "
                "segmentation masks.",
                None,
                True,
                False,
                "<p> polyp. one polyp, centre, medium. </p> [SEG]",
            ),
            Task(
                "grounded_vqa",
                "Findings in an anatomy",
                "<image>Can we observe any signs of abnormality in {target}? Please respond with interleaved "
                "segmentation masks for the corresponding parts.",
                None,
                True,
                False,
                "<p> pleural effusion. </p> [SEG]",
            ),
            Task("vqa", "Ask", "<image>\n{question}", None, False, False, "yes"),
            Task(
                "roi_class",
                "Name the region",
                "<image>\nWhat is the <region> in the picture?",
                None,
                False,
                True,
                "liver in abdomen ct",
            ),
            Task(
                "roi_describe",
                "Describe the region",
                "<image>\nPlease describe the region <region> in the image in detail.",
                None,
                False,
                True,
                "a small bright region in the upper left of the image.",
            ),
            Task(
                "modality",
                "Tell the modality",
                "<image>\nWhat is the modality of this picture?",
                None,
                False,
                False,
                "ct",
            ),
            Task(
                "part",
                "Tell the part of the body",
                "<image>\nWhat part of the body does this picture show?",
                None,
                False,
                False,
                "blood smear",
            ),
            Task("ground", "Ground a text", "<image>{question}", None, True, False, "<p> liver </p> [SEG]"),
        )
    }
)


MODALITY_ANSWERS: Mapping[str, str] = MappingProxyType({name: row.label.lower() for name, row in MODALITIES.items()})
"""Modality -> how the task "modality" is answered; a closed question has no other answers."""

PART_ANSWERS: Mapping[str, str] = MappingProxyType(
    {**{part: part for part in PARTS}, "bowel": "bowel lumen", "blood": "blood smear", "tissue": "tissue section"}
)
"""Part of the body -> how the task "part" is answered; a closed question has no other answers."""


@dataclass(frozen=True, slots=True)
class ParsedPhrase:
    """``text[start:end]`` of the clean answer; ``seg`` is the number of its ``[SEG]`` in order, or None."""

    text: str
    start: int
    end: int
    seg: int | None


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """A raw answer taken apart.

    Args:
        text: Clean text for people: tags and special tokens removed, spaces collapsed.
        phrases: In order of appearance; every ``[SEG]`` belongs to exactly one of them.
        ended: Whether the stop text was reached.
        says_nothing_found: Whether the answer states that there are no findings.
    """

    text: str
    phrases: tuple[ParsedPhrase, ...]
    ended: bool
    says_nothing_found: bool


_MARK = re.compile(r"<p>|</p>|\[SEG\]|<\|[a-z_]+\|>|</?(?:img|vp|ref|box|quad|IMG_CONTEXT)>")


def parse_answer(raw: str, target: str = "") -> ParsedAnswer:
    """Pair the phrases of an answer with its ``[SEG]`` tokens.

    The rules, in this order: ``<p> phrase </p> [SEG]`` pairs by position; ``[SEG]. phrase.`` pairs with the sentence
    that follows (disease answers put the mask first); any other ``[SEG]`` stands for ``target``, which is put into the
    clean text in its place. A tagged phrase without a ``[SEG]`` stays a phrase without a region.
    """
    text = ""
    phrases: list[ParsedPhrase] = []
    open_at: int | None = None
    waiting: list[int] = []  # tagged phrases that no [SEG] has claimed yet
    bare: list[int] = []  # [SEG]s that take the sentence that follows
    seg = 0
    position = 0

    def add(piece: str) -> None:
        nonlocal text
        piece = re.sub(r"\s+", " ", piece)
        if not text or text.endswith(" "):
            piece = piece.lstrip(" ")
        if piece[:1] in {".", ",", ";"} and text.endswith(" "):
            text = text.rstrip(" ")
        text += piece

    def claim_sentence(piece: str) -> str:
        """Give the first sentence of ``piece`` to the oldest bare ``[SEG]``; returns what is left."""
        match = re.match(r"[\s.:,]*([^.\s][^.]*)(\.|$)", piece)
        if not bare or match is None:
            return piece
        lead = piece[: match.start(1)]
        if text:
            add(re.sub(r"^\s*\.", "", lead) or " ")
        phrase = re.sub(r"\s+", " ", match.group(1).strip())
        add(phrase)
        start = len(text) - len(phrase)
        phrases.append(ParsedPhrase(phrase, start, len(text), bare.pop(0)))
        return piece[match.end(1) :]

    for match in [*_MARK.finditer(raw), None]:
        piece = raw[position : match.start() if match else len(raw)]
        if bare and open_at is None:
            piece = claim_sentence(piece)
        add(piece)
        if match is None:
            break
        position = match.end()
        mark = match.group()
        if mark == PHRASE_OPEN:
            open_at = len(text.rstrip(" ")) + 1 if text.rstrip(" ") else 0
        elif mark == PHRASE_CLOSE and open_at is not None:
            body = text[open_at:].strip(" ")
            waiting.append(len(phrases))
            phrases.append(ParsedPhrase(body, open_at, open_at + len(body), None))
            open_at = None
        elif mark == SEG:
            if waiting:
                index = waiting.pop(0)
                phrases[index] = ParsedPhrase(phrases[index].text, phrases[index].start, phrases[index].end, seg)
            elif target or not _has_sentence(raw[position:]):
                name = target or "region"
                add(name)
                phrases.append(ParsedPhrase(name, len(text) - len(name), len(text), seg))
            else:
                text = re.sub(r"(?i)(?:sure, )?(?:it is|the segmentation result is|sure,)\s*$", "", text)
                bare.append(seg)
            seg += 1
    clean = text.rstrip()
    nothing = NO_FINDINGS in clean.lower()
    return ParsedAnswer(clean, tuple(phrases), END in raw, nothing)


def _has_sentence(rest: str) -> bool:
    """Whether words follow before the next mark."""
    upto = _MARK.search(rest)
    return bool(re.search(r"\w", rest[: upto.start()] if upto else rest))


def tag_phrases(sentence: str, modality: str = "", extra: Sequence[str] = ()) -> str:
    """Wrap every vocabulary name in a plain sentence as ``<p> name </p> [SEG]``; a tagged text is returned as it is.

    Longer names win over shorter ones inside them.

    Args:
        extra: Further names to look for.

    Raises:
        PromptError: Nothing in the sentence can be grounded.
    """
    if SEG in sentence:
        return sentence
    if PHRASE_OPEN in sentence:
        return re.sub(r"</p>(?!\s*\[SEG\])", f"{PHRASE_CLOSE} {SEG}", sentence)
    names = {
        name for t in targets().values() if not modality or modality in t.contexts for name in (t.name, *t.synonyms)
    }
    wordings = sorted({*names, *extra}, key=len, reverse=True)
    pattern = "|".join(re.escape(normalise(w)).replace(r"\ ", r"[\s-]+") for w in wordings if w.strip())
    spelling = sentence.replace("tumor", "tumour").replace("Tumor", "Tumour")
    tagged, count = re.subn(rf"(?i)\b({pattern})\b", rf"{PHRASE_OPEN} \1 {PHRASE_CLOSE} {SEG}", spelling)
    if not count:
        raise PromptError(
            "Nothing to ground",
            f"no known target stands in '{sentence[:80]}'",
            "a sentence that names at least one target, or one with <p> ... </p> [SEG] tags",
            "Tag the phrases yourself, or use a known name.",
        )
    return tagged


def check_text(text: str, what: str) -> str:
    """A user's text, checked.

    Raises:
        PromptError: The text is empty, over ``MAX_PROMPT_CHARACTERS`` long, or holds control characters.
    """
    if not text.strip():
        raise PromptError(f"Empty {what}", f"the {what} has no words", "at least one word")
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise PromptError(
            f"{what.capitalize()} too long",
            f"it has {len(text)} characters",
            f"at most {MAX_PROMPT_CHARACTERS}",
            "Shorten it.",
        )
    bad = sorted(
        # A lone surrogate stands for a byte of the command line that is no text.
        {
            f"U+{ord(c):04X}"
            for c in text
            if (ord(c) < 32 and c not in "\n\t") or c == "\x7f" or 0xD800 <= ord(c) < 0xE000
        }
    )
    if bad:
        raise PromptError(
            f"Control characters in the {what}", f"it holds {', '.join(bad[:5])}", "printable text", "Retype it."
        )
    return text
