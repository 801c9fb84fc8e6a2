"""What a picture surely does not show, from its part of the body and from a source that calls it a normal one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from train.data import examples
from train.data.body_parts import body_of
from train.data.boxes import empty_box, inner_box
from train.data.examples import available_tasks, boxed_examples, pick_targets, plain_examples
from train.data.negatives import all_told, negatives, nothing_found, part_of
from train.data.records import Record, region_record, resize_picture
from train.data.targets import NOTHING
from train.datasets.registry import registry
from train.datasets.shared_layout import SOURCES
from unibiomed_core import vocabulary
from unibiomed_core.modalities import modality
from unibiomed_core.tasks import END, MODALITY_ANSWERS, NO_FINDINGS, PART_ANSWERS, TASKS

SIDE = 64
CHEST_FINDINGS = {"ground-glass opacity", "consolidation", "pleural effusion", "pneumothorax"}


def disc(y: int, x: int, radius: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def record(dataset: str, kind: str, *shown: str, **more: Any) -> Record:
    picture = resize_picture(np.full((SIDE, SIDE, 3), 90, np.uint8), 0)
    regions = tuple(region_record(name, disc(16 + 14 * n, 20, 6)) for n, name in enumerate(shown))
    return Record(f"{dataset}/a", dataset, "train", "g", kind, "none", picture, (SIDE, SIDE), regions=regions, **more)


def test_a_thigh_has_no_hippocampus() -> None:
    thigh = negatives(record("soft-tissue-sarcoma-pet-ct-mr", "mri", "soft-tissue sarcoma"))
    assert {"hippocampus", "brain tumour", "liver", "left atrium"} <= set(thigh.far)
    assert "prostate tumour" not in thigh.far, "a scan of a thigh may begin in the pelvis"
    assert "soft-tissue sarcoma" not in thigh.all()
    assert {"polyp", "optic disc", "consolidation"} <= set(thigh.other)
    assert not set(thigh.other) & set(thigh.far)


def test_a_normal_chest_film_has_no_finding_of_the_chest() -> None:
    film = record("montgomery-cxr", "xray", "lung fields", image_class="normal")
    assert set(negatives(film).near) == CHEST_FINDINGS
    assert nothing_found(film)
    ill = replace(film, image_class="tuberculosis")
    assert negatives(ill).near == ()
    assert not nothing_found(ill)
    assert "endotracheal tube" not in negatives(film).all(), "a tube is no finding, nobody looked for it"


def test_every_known_data_set_says_what_it_shows() -> None:
    silent = {name for name in (*SOURCES, *registry()) if not body_of(name)}
    assert silent == {"vqa-rad", "path-vqa", "slake", "pmc-oa", "pmc-vqa", "sa-med2d-20m"}, (
        "these show any part of the body"
    )
    assert {part for name in (*SOURCES, *registry()) for part in body_of(name)} == set(vocabulary.PARTS)


def test_nothing_is_sure_where_the_part_is_unknown() -> None:
    asked = record("vqa-rad", "ct", image_class="normal")
    assert (body_of("vqa-rad"), part_of(asked)) == ((), "")
    assert negatives(asked).all() == frozenset()
    assert negatives(record("vqa-rad", "")).all() == frozenset()


def test_an_own_data_set_is_told_by_what_it_shows_and_by_what_was_written() -> None:
    own = record("mine", "ct", "liver", foreign=("subdural haemorrhage",))
    told = negatives(own)
    assert "larynx" not in told.far, "lungs may come into a picture with a liver, and so may what lies above them"
    assert {"subdural haemorrhage", "ischaemic stroke", "soft-tissue sarcoma"} <= set(told.far)
    assert negatives(replace(own, regions=(), foreign=("ischaemic stroke",))).all() == {"ischaemic stroke"}


def test_neighbouring_parts_of_a_scan_are_no_sure_negatives() -> None:
    heart = negatives(record("acdc-mri-heart", "mri", "left ventricular cavity"))
    assert not {"liver", "lung", "vertebra", "spinal cord", "aorta"} & heart.all()
    assert "hippocampus" in heart.far
    neck = negatives(record("openkbp-head-neck-ct", "ct", "larynx"))
    assert not {"aorta", "lung", "lung tumour", "vertebra", "subdural haemorrhage"} & heart.all() & neck.all()
    assert {"soft-tissue sarcoma", "prostate tumour"} <= neck.all()


def test_nothing_that_a_source_annotates_is_far_away() -> None:
    """Written rules of parts must not contradict the data that they are about."""
    for dataset, source in SOURCES.items():
        for kind in {m for target in source.labels for m in vocabulary.targets()[target].contexts}:
            for target in source.labels:
                one = record(dataset, kind, target)
                other = set(source.labels) - {target}
                assert not other & {*negatives(one).far, *negatives(one).other}, (dataset, target)


@pytest.mark.parametrize(
    ("dataset", "kind", "shown", "volume", "part"),
    [
        ("kvasir-seg", "endoscopy", (), "", "bowel"),
        ("msd-hippocampus", "mri", (), "v", "head"),
        ("montgomery-cxr", "xray", (), "", "chest"),
        ("acdc-mri-heart", "mri", ("left ventricular cavity",), "", "heart"),
        ("totalsegmentator-ct-sample", "ct", ("kidney", "vertebra", "aorta"), "v", "abdomen"),
        ("totalsegmentator-ct-sample", "ct", ("liver", "lung", "vertebra"), "v", ""),
        ("totalsegmentator-ct-sample", "ct", (), "v", ""),
        ("deeplesion-ct-sample", "ct", ("lesion",), "v", ""),
        ("usgra-nerve-vessel", "ultrasound", ("nerve",), "", ""),
        ("openkbp-head-neck-ct", "ct", ("spinal cord", "mandible"), "v", "neck"),
        ("openkbp-head-neck-ct", "ct", ("spinal cord",), "v", ""),
        ("mine", "ct", ("left kidney",), "v", "abdomen"),
        ("mine", "ct", ("a name of one's own",), "v", ""),
        ("mine", "dermoscopy", (), "", "skin"),
        ("vqa-rad", "xray", (), "", ""),
    ],
)
def test_the_part_is_told_where_it_is_sure(
    dataset: str, kind: str, shown: tuple[str, ...], volume: str, part: str
) -> None:
    assert part_of(record(dataset, kind, *shown, volume=volume)) == part


def test_modality_and_part_are_asked_as_the_engine_asks_them() -> None:
    smear = record("wbc-smear", "pathology", "white blood cell")
    assert {"modality", "part"} <= set(available_tasks(smear))
    made = {
        e.task: (e.question, e.answer)
        for seed in range(20)
        for e in plain_examples(smear, np.random.default_rng(seed), {}, 0)
    }
    assert made["modality"] == ("<image>\nWhat is the modality of this picture?", "pathology" + END)
    assert made["part"] == (TASKS["part"].instruction, "blood smear" + END)
    assert "part" not in available_tasks(record("vqa-rad", "ct"))
    assert MODALITY_ANSWERS["xray"] == modality("xray").label.lower() == "x-ray"
    assert tuple(PART_ANSWERS) == vocabulary.PARTS
    assert len(set(PART_ANSWERS.values())) == len(PART_ANSWERS), "two parts with one answer could not be told apart"


def test_what_a_picture_is_is_asked_beside_other_questions_and_always_where_there_is_none() -> None:
    heart = record("acdc-mri-heart", "mri", "left ventricular cavity")
    known = {"mri": ("left ventricular cavity",)}
    alone = [plain_examples(heart, np.random.default_rng(seed), {}, 0) for seed in range(200)]
    assert {tuple(e.task for e in given) for given in alone} == {("modality", "part")}
    beside = [plain_examples(heart, np.random.default_rng(seed), known, 1) for seed in range(200)]
    for task, share in examples.LOOK_SHARES.items():
        asked = sum(any(e.task == task for e in given) for given in beside)
        assert asked / 200 == pytest.approx(share, abs=0.11)


def test_masks_learn_from_every_kind_of_negative_that_the_run_knows() -> None:
    film = record("montgomery-cxr", "xray", "lung fields", image_class="normal")
    known = {"lung fields", "consolidation", "polyp", NOTHING}
    picked = {pair for seed in range(60) for pair in pick_targets(film, np.random.default_rng(seed), 4, known)}
    assert picked == {("lung fields", True), ("consolidation", False), ("polyp", False), (NOTHING, False)}


def test_a_picture_is_asked_for_targets_of_other_modalities_in_their_wording() -> None:
    film = record("montgomery-cxr", "xray", "lung fields")
    known = {"xray": ("lung fields", "airways"), "endoscopy": ("polyp",)}
    asked = [e for seed in range(200) for e in plain_examples(film, np.random.default_rng(seed), known, 2)]
    foreign = [e for e in asked if e.targets == ("polyp",)]
    assert 0.04 < len(foreign) / 200 < 0.2
    assert all("polyp in colon endoscopy" in e.question for e in foreign)


def test_a_normal_picture_of_a_source_with_unknown_findings_says_no_findings() -> None:
    film = record("mine", "xray", "lung fields", image_class="Normal")
    assert {"disease", "report"} <= set(available_tasks(film))
    said = [e for s in range(30) for e in plain_examples(film, np.random.default_rng(s), {}, 0) if e.task == "disease"]
    assert said
    assert all(NO_FINDINGS in e.answer and e.targets == (NOTHING,) for e in said)


def test_a_box_within_healthy_anatomy_keeps_the_name_of_the_anatomy() -> None:
    film = record("montgomery-cxr", "xray", image_class="normal")
    lung, spot = disc(30, 30, 24), disc(30, 30, 5)
    film = replace(film, regions=(region_record("lung fields", lung),))
    for seed in range(20):
        box = inner_box(film, film.regions[0], lung, np.random.default_rng(seed))
        assert box is not None
        assert lung[box.y0 : box.y1 + 1, box.x0 : box.x1 + 1].mean() >= 0.8
    both = (*film.regions, region_record("consolidation", spot))
    ill = replace(film, image_class="", findings_known=True, regions=both)
    for seed in range(20):
        box = inner_box(ill, ill.regions[0], lung, np.random.default_rng(seed))
        assert box is None or not spot[box.y0 : box.y1 + 1, box.x0 : box.x1 + 1].any()
    heart = replace(film, dataset="acdc-mri-heart", modality="mri", image_class="")
    heart = replace(heart, regions=(region_record("left ventricular cavity", lung),))
    assert inner_box(heart, heart.regions[0], lung, np.random.default_rng(0)), "no finding of a heart has a name"
    unknown = replace(ill, findings_known=False)
    assert inner_box(unknown, unknown.regions[0], lung, np.random.default_rng(0)) is None
    answers = {e.answer for seed in range(40) for e in boxed_examples(film, np.random.default_rng(seed))[1]}
    assert {a for a in answers if "lung fields" not in a} == set(), "nothing else is in this film"


def test_a_box_on_nothing_is_named_so_where_all_is_told() -> None:
    breast = record("busi-breast-us", "ultrasound", "breast lesion", findings_known=True)
    assert all_told(breast)
    lesion = breast.masks()["breast lesion"]
    for seed in range(20):
        box = empty_box(breast, np.random.default_rng(seed))
        assert box is not None
        assert not lesion[box.y0 : box.y1 + 1, box.x0 : box.x1 + 1].any()
    answers = [e.answer for seed in range(60) for e in boxed_examples(breast, np.random.default_rng(seed))[1]]
    assert answers.count(NO_FINDINGS + END) == pytest.approx(60 * examples.EMPTY_BOX, abs=9)
    # A liver that nobody annotated may lie anywhere in this one.
    kidneys = record("kits19-ct-kidney", "ct", "kidney", findings_known=True, absent=("kidney tumour",))
    assert not all_told(kidneys)
    assert empty_box(kidneys, np.random.default_rng(0)) is None
    assert empty_box(replace(breast, findings_known=False), np.random.default_rng(0)) is None
