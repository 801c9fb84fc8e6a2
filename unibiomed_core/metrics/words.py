"""How close an answer is to a reference: BLEU, METEOR, ROUGE-L.

All of them compare lower-case words; punctuation does not count, as in the tokenisation of the COCO caption toolkit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

ROUGE_BETA = 1.2
"""Weight of recall in ROUGE-L, as the COCO caption toolkit has it."""

_WORD = re.compile(r"\w+(?:[.'-]\w+)*")


class _NoSynonyms:
    """Stands in for WordNet, whose data nltk would have to download: no word has a synonym."""

    def synsets(self, word: str) -> list[object]:
        return []


def tokens(text: str) -> list[str]:
    """Lower-case words and numbers of a text."""
    return _WORD.findall(text.lower())


def bleu(answers: Sequence[str], references: Sequence[str]) -> tuple[float, float, float, float]:
    """Corpus BLEU-1 to BLEU-4 with one reference each (Papineni et al. 2002), without smoothing; NaN for no pair."""
    from sacrebleu.metrics import BLEU

    if len(answers) != len(references):
        raise ValueError(f"{len(answers)} answers and {len(references)} references")
    if not answers:
        nan = float("nan")
        return nan, nan, nan, nan
    said, wanted = ([" ".join(tokens(text)) for text in texts] for texts in (answers, references))
    found = BLEU(tokenize="none", smooth_method="none", force=True).corpus_score(said, [wanted])
    precisions = [p / 100 for p in found.precisions]  # sacrebleu gives per cent
    one, two, three, four = (
        found.bp * math.exp(sum(math.log(p) for p in precisions[:n]) / n) if all(precisions[:n]) else 0.0
        for n in (1, 2, 3, 4)
    )
    return one, two, three, four


def meteor(answer: str, reference: str) -> float:
    """METEOR of one pair with exact and stem matches (Banerjee and Lavie 2005; alpha 0.9, beta 3, gamma 0.5).

    Synonyms are not matched, so it is a little lower than with WordNet. 1.0 where both are empty.
    """
    from nltk.translate.meteor_score import single_meteor_score

    said, wanted = tokens(answer), tokens(reference)
    if not said or not wanted:
        return float(said == wanted)
    return float(single_meteor_score(wanted, said, wordnet=_NoSynonyms()))


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L of one pair: F of the longest common subsequence of words (Lin 2004), recall weighted with
    ``ROUGE_BETA``; 1.0 where both are empty.
    """
    from rapidfuzz.distance import LCSseq

    said, wanted = tokens(answer), tokens(reference)
    if not said or not wanted:
        return float(said == wanted)
    common = LCSseq.similarity(said, wanted)
    precision, recall = common / len(said), common / len(wanted)
    if not common:
        return 0.0
    return (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)
