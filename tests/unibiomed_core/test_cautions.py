"""Answers outside what a model has learnt say so, and closed answers have a score (ux 7)."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.unibiomed_core.cli.cli_kit import answer, call, images, picky_folder, succeeded, toy_folder
from tests.unibiomed_core.engine.toy import SOFT_TISSUE, ct_slice, toy_engine
from unibiomed_core.engine.prompts import yes_or_no
from unibiomed_core.phrases import caution
from unibiomed_core.report import answer_text
from unibiomed_core.tasks import END
from unibiomed_core.types import Caution, Prompt, Region

__all__ = ["images", "picky_folder", "toy_folder"]

LEARNT = {"ct": ("soft-tissue sarcoma", "liver", "lung")}


@pytest.mark.parametrize(
    ("question", "subjects"),
    [
        ("Is there a fracture of the femur?", ("fracture", "femur")),
        ("Is the liver enlarged?", ("enlarged",)),
        ("Is there a soft tissue sarcoma or a haematoma near the liver?", ("haematoma",)),
    ],
)
def test_what_a_model_has_not_learnt_is_named(question: str, subjects: tuple[str, ...]) -> None:
    assert caution(question, "ct", LEARNT) == Caution("subject_not_learnt", subjects)


@pytest.mark.parametrize(
    "question", ["Is there a sarcoma?", "Are the lungs visible?", "Can you see a Hepar in this CT?"]
)
def test_what_it_has_learnt_needs_no_caution(question: str) -> None:
    assert caution(question, "ct", LEARNT) is None


def test_a_question_without_a_target_and_a_modality_without_targets() -> None:
    assert caution("What can be seen in this image?", "ct", LEARNT) == Caution("no_target_named")
    assert caution("Is there a liver?", "oct", LEARNT) == Caution("subject_not_learnt", ("liver",))
    assert caution("Is there a fracture?", "ct", {}) is None, "nothing is known of what a free-text model learnt"


def test_yes_and_no_are_set_against_each_other_in_the_letters_that_were_written() -> None:
    assert yes_or_no(f"no{END}") == (f"no{END}", f"yes{END}")
    assert yes_or_no(f"Yes.{END}") == (f"Yes.{END}", f"No.{END}")
    assert yes_or_no(f"not sure{END}") == ()


def test_the_score_of_a_written_no_is_its_share_beside_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = toy_engine(targets=LEARNT)
    decode = engine.processor.decode
    monkeypatch.setattr(engine.processor, "decode", lambda ids: f"no{END}" if len(ids) == 3 else decode(ids))
    prompt = Prompt("vqa", question="Is there a fracture?", max_new_tokens=3)
    ((given,),) = engine.predict([ct_slice()], [prompt], SOFT_TISSUE)
    lengths = [len(engine.processor.encode(f"{word}{END}")) for word in ("no", "yes")]
    no, yes = (
        mean * n
        for mean, n in zip(engine.likelihoods(ct_slice(), prompt, ["no", "yes"], SOFT_TISSUE), lengths, strict=True)
    )
    # The same rows in batches of other sizes: float32 sums differ in the last digits.
    assert given.likelihood == pytest.approx(1 / (1 + math.exp(yes - no)), abs=1e-4)
    assert given.caution == Caution("subject_not_learnt", ("fracture",))


def test_the_name_of_a_box_has_its_share_among_all_names() -> None:
    engine = toy_engine(targets=LEARNT)
    ((given,),) = engine.predict([ct_slice()], [Prompt("roi_class", region=Region(10, 10, 30, 30))], SOFT_TISSUE)
    assert given.likelihood is not None
    assert 1 / len(LEARNT["ct"]) <= given.likelihood <= 1, "the likeliest of three has at least a third"


def test_the_words_for_people() -> None:
    told = answer_text("no.", 0.614, Caution("subject_not_learnt", ("fracture",)))
    assert told == (
        "no (score 0.61). “fracture” is not among the targets that this model has learnt; do not rely on this answer."
    )
    assert answer_text("a liver", None, None) == "a liver"


def test_the_command_line_says_it_and_writes_it(images: Path, picky_folder: str, tmp_path: Path) -> None:
    result = succeeded(
        call("ask", images / "ct.nii.gz", "Is there a fracture?", "--max-new-tokens", 3, "--model", picky_folder,
             "--out", tmp_path)
    )  # fmt: skip
    assert "“fracture” is not among the targets that this model has learnt" in result.stdout
    given = answer(tmp_path)
    assert given["caution"] == {"code": "subject_not_learnt", "subjects": ["fracture"]}
    assert "likelihood_0_to_1" in given


def test_a_model_that_takes_any_words_is_not_doubted(images: Path, toy_folder: str, tmp_path: Path) -> None:
    succeeded(
        call("ask", images / "ct.nii.gz", "Is there a fracture?", "--max-new-tokens", 3, "--model", toy_folder,
             "--out", tmp_path)
    )  # fmt: skip
    assert answer(tmp_path)["caution"] is None
