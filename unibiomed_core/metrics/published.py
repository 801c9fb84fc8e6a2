"""The rules of the published evaluation scripts, for numbers that can be put beside the published ones.

They are lenient in places; our own numbers stand beside them with stricter rules.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from unibiomed_core.tasks import SEG


def clean(answer: str) -> str:
    """An answer without everything in angle brackets and without ``[SEG]``, spaces collapsed."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", answer).replace(SEG, "")).strip()


def disease_hits(raw: str, findings: Sequence[str]) -> list[bool] | None:
    """Of each annotated finding, whether its text with a full stop stands in the answer behind ``[SEG]. ``.

    Args:
        raw: The answer with special tokens.
        findings: Annotated findings, or the one text that stands for none.

    Returns:
        None where the answer has not as many ``[SEG]`` as there are findings: such pictures are left out.
    """
    if raw.count(SEG) != len(findings):
        return None
    said = clean(raw.split(f"{SEG}. ", 1)[-1]).lower()
    return [f"{finding.lower()}." in said for finding in findings]


def roi_hit(answer: str, truth: str) -> bool:
    """Whether target (text before the first " in ", side left out) and modality (last word) are those of the truth."""
    target, wanted = (_unsided(text).split(" in ", 1)[0].strip() for text in (answer, truth))
    last, modality = (text.lower().split()[-1:] for text in (answer.rstrip(". "), truth))
    return target == wanted and bool(last) and bool(modality) and modality[0] in last[0]


def _unsided(text: str) -> str:
    return text.lower().rstrip(". ").replace("left ", "").replace("right ", "")
