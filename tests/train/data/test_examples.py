"""Examples from records: every task, targets in step with their marks, boxes, sentences."""

from __future__ import annotations

import numpy as np
import pytest

from tests.train.tiny_data import write_tree
from train.data import records as record_files
from train.data.augment import may_mirror
from train.data.boxes import region_of
from train.data.examples import boxed_examples, pick_targets, plain_examples
from train.data.negatives import findings
from train.data.records import UNNAMED, Record, RecordSet, RegionRecord, region_record, resize_mask
from train.data.run_lengths import encode_mask
from train.data.targets import NOTHING, target_codes, trained_targets
from train.data.wordings import brightness, describe, place, side, size_word
from train.prepare import prepare
from unibiomed_core.tasks import END, parse_answer


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> RecordSet:
    data = write_tree(tmp_path_factory.mktemp("data"))
    prepare(data, data / "records", 64, lambda line: None)
    return record_files.load(data / "records" / "train.parquet")


def record(*regions: RegionRecord, **more: object) -> Record:
    picture = record_files.resize_picture(np.full((32, 32, 3), 90, np.uint8), 0)
    return Record("d/a", "d", "train", "g", "ct", "none", picture, (32, 32), regions=regions, **more)  # type: ignore[arg-type]


def test_every_seg_has_one_target_and_answers_end(training: RecordSet) -> None:
    rng = np.random.default_rng(0)
    known = trained_targets(training)
    seen = set()
    for one in [*training] * 12:
        examples = plain_examples(one, rng, known, 3)
        if one.regions:
            examples += boxed_examples(one, rng)[1]
        for example in examples:
            seen.add(example.task)
            assert example.answer.count("[SEG]") == len(example.targets)
            assert example.answer.endswith(END)
            assert example.question.startswith("<image>")
            parsed = parse_answer(example.answer, "x")
            assert sum(p.seg is not None for p in parsed.phrases) == len(example.targets)
    assert seen == {"segment", "disease", "report", "roi_class", "roi_describe", "vqa", "modality", "part"}


def test_a_target_that_is_there_is_always_asked(training: RecordSet) -> None:
    known = {m: (*names, "liver") for m, names in trained_targets(training).items()}
    for seed, one in enumerate(training):
        asked = [
            e.targets[0] for e in plain_examples(one, np.random.default_rng(seed), known, 1) if e.task == "segment"
        ]
        if one.regions:
            assert set(asked) <= {r.target for r in one.regions}
            assert asked


def test_negatives_are_in_every_picture_that_can_have_one() -> None:
    liver = region_record("liver", np.eye(32, dtype=bool))
    shown = record(liver, absent=("spleen",), foreign=("lung tumour",))
    for seed in range(20):
        picked = pick_targets(shown, np.random.default_rng(seed), 4, {"liver", "spleen", "lung tumour"})
        assert ("liver", True) in picked
        assert any(not present for _, present in picked)


def test_nothing_found_is_a_target_of_its_own() -> None:
    empty = record(findings_known=True, absent=("lung tumour",))
    asked = [e for seed in range(9) for e in plain_examples(empty, np.random.default_rng(seed), {}, 0)]
    told = [e for e in asked if e.task in {"disease", "report"}]
    assert told
    assert all(e.targets == (NOTHING,) and "no findings" in e.answer for e in told)


def test_anatomy_is_no_finding() -> None:
    mask = np.eye(32, dtype=bool)
    parts = [region_record(n, mask) for n in ("liver", "lung tumour", "brain tumour", "tumour core", "odd thing")]
    assert findings(record(*parts)) == ["lung tumour", "brain tumour", "odd thing"]


def test_a_region_known_by_its_box_alone_is_described_and_not_named() -> None:
    boxed = record(RegionRecord(UNNAMED, box=(4, 6, 20, 12), caption="A bright spot."))
    own, region, mask = region_of(boxed, np.random.default_rng(0))
    assert (own.target, region.box, int(mask.sum())) == (UNNAMED, (4, 6, 20, 12), 17 * 7)
    region, examples = boxed_examples(boxed, np.random.default_rng(1))
    assert [e.task for e in examples] == ["roi_describe"]
    assert examples[0].answer == "A bright spot." + END


def test_boxes_enclose_one_piece_and_may_be_loose() -> None:
    mask = np.zeros((32, 32), bool)
    mask[4:10, 4:10] = mask[20:30, 20:30] = True
    two = record(region_record("liver", mask))
    boxes = {region_of(two, np.random.default_rng(s))[1].box for s in range(20)}
    assert boxes == {(4, 4, 9, 9), (20, 20, 29, 29)}
    loose = {boxed_examples(two, np.random.default_rng(s))[0].box for s in range(20)}
    assert boxes < loose
    assert all(0 <= x0 < x1 <= 31 and 0 <= y0 < y1 <= 31 for x0, y0, x1, y1 in loose)


def test_sided_pictures_are_never_mirrored() -> None:
    mask = np.ones((32, 32), bool)
    assert may_mirror(record(region_record("polyp", mask)))
    assert not may_mirror(record(region_record("left kidney", mask)))
    assert not may_mirror(record(region_record("liver", mask)))
    assert not may_mirror(record(region_record("a name of one's own", mask)))


def test_sentences_say_what_the_mask_shows() -> None:
    rgb = np.full((90, 90, 3), 60, np.uint8)
    mask = np.zeros((90, 90), bool)
    mask[5:15, 70:80] = True
    rgb[mask] = 200
    assert place(mask) == "upper right"
    assert size_word(mask) == "small"
    assert brightness(mask, rgb) == "brighter than"
    assert side(mask, "ct") == "on the patient's left"
    assert side(mask, "endoscopy") == ""
    assert "brighter than its surroundings" in describe("liver", mask, rgb, "ct")


def test_small_masks_follow_the_area_rule() -> None:
    mask = np.zeros((64, 64), bool)
    mask[:, :32] = True
    assert (resize_mask(mask, 16) == np.pad(np.ones((16, 8), bool), ((0, 0), (0, 8)))).all()
    assert resize_mask(mask, 0) is mask


def test_codes_are_fixed_and_new_names_leave_them_alone() -> None:
    first = target_codes(["liver", NOTHING], 16)
    again = target_codes(["my own structure", "liver", NOTHING], 16)
    assert (first == again[1:]).all()
    assert (again[0] == target_codes(["my own structure"], 16)[0]).all()
    assert abs(float(target_codes(["liver"], 4096).std()) - 0.5) < 0.02


def test_masks_come_back_as_they_were_stored() -> None:
    mask = np.random.default_rng(0).random((20, 32)) > 0.5
    wide = Record("d/b", "d", "train", "g", "ct", "", record_files.resize_picture(np.zeros((20, 32, 3), np.uint8), 0),
                  (20, 32), regions=(RegionRecord("liver", encode_mask(mask)),))  # fmt: skip
    assert (wide.masks()["liver"] == mask).all()
    assert wide.stored_size == (20, 32)
