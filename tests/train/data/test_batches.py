"""Batches: packed questions equal separate ones, augmentation, the sampler, dealing to processes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.train.tiny_data import write_tree
from train.data import records as record_files
from train.data.augment import augment, mirror_words
from train.data.batches import IGNORED, Sheet, make_sheet, mask_batch, text_batch
from train.data.examples import Example, plain_examples, segment_example, vocabulary_texts
from train.data.records import RecordSet
from train.data.sampler import Sampler
from train.data.targets import trained_targets
from train.prepare import prepare
from train.recipes import RECIPES
from train.training.initialise import train_tokenizer
from train.training.loop import Steps
from train.training.stage import TrainingData, text_sum
from train.training.stages import KINDS
from unibiomed_core.errors import ConfigError, DataError
from unibiomed_core.model.presets import toy
from unibiomed_core.model.processor import Processor
from unibiomed_core.model.unibiomed import UniBiomed
from unibiomed_core.tasks import END
from unibiomed_core.types import Region


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> RecordSet:
    data = write_tree(tmp_path_factory.mktemp("data"))
    prepare(data, data / "records", 64, lambda line: None)
    return record_files.load(data / "records" / "train.parquet")


@pytest.fixture(scope="module")
def material(training: RecordSet) -> TrainingData:
    tokenizer = train_tokenizer(vocabulary_texts(training, trained_targets(training), 0), 512)
    sizes = toy(tokenizer.get_vocab_size())
    return TrainingData(training, Processor(sizes, tokenizer), seed=3)


@pytest.fixture(scope="module")
def model(material: TrainingData) -> UniBiomed:
    torch.manual_seed(0)
    return UniBiomed(material.processor.config, material.processor.ids).eval()


def endoscopy(training: RecordSet) -> record_files.Record:
    return next(r for r in training if r.dataset == "kvasir-seg")


def sheet(record: record_files.Record, *examples: Example, region: Region | None = None, mirror: bool = False) -> Sheet:
    return Sheet(record, examples, region, mirror, np.random.default_rng(0))


@torch.no_grad()
def test_packed_questions_equal_separate_ones(training: RecordSet, material: TrainingData, model: UniBiomed) -> None:
    record = endoscopy(training)
    examples = plain_examples(record, np.random.default_rng(2), {"endoscopy": ("polyp",)}, 1)
    examples += [Example("vqa", "<image>\nWhat is this?", "an endoscopy." + END)]
    assert len(examples) >= 3

    def states(*asked: Example) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        given = text_batch([sheet(record, *asked)], material.processor, material.numbers).batch
        tokens = model.encode_tiles(given.tiles)
        hidden = model.language(model.embed(given.input_ids, tokens), given.attention_mask, given.position_ids)
        where = given.labels[0] != IGNORED
        return hidden[0][where], hidden[given.input_ids == model.ids.seg], text_sum(model, hidden, given.labels)

    learnt = [replace(e, learn_words=True) for e in examples]
    together, segs, loss = states(*learnt)
    apart = [states(e) for e in learnt]
    assert torch.allclose(together, torch.cat([a[0] for a in apart]), atol=1e-5)
    assert torch.allclose(segs, torch.cat([a[1] for a in apart]), atol=1e-5)
    assert torch.isclose(loss, torch.stack([a[2] for a in apart]).sum(), rtol=1e-5)


@torch.no_grad()
def test_a_row_beside_a_longer_one_is_not_changed(
    training: RecordSet, material: TrainingData, model: UniBiomed
) -> None:
    record = endoscopy(training)
    short = Example("vqa", "<image>\nA polyp?", "yes" + END)
    long = Example("vqa", "<image>\nIs there anything to be seen here at all?", "a polyp, yes" * 4 + END)

    def sums(*examples: Example) -> float:
        sheets = [sheet(record, example) for example in examples]
        given = text_batch(sheets, material.processor, material.numbers).batch
        tokens = model.encode_tiles(given.tiles)
        hidden = model.language(model.embed(given.input_ids, tokens), given.attention_mask, given.position_ids)
        assert hidden.isfinite().all()
        return float(text_sum(model, hidden, given.labels))

    assert abs(sums(short, long) - sums(short) - sums(long)) < 1e-3


def test_only_answers_carry_loss(training: RecordSet, material: TrainingData) -> None:
    record = endoscopy(training)
    known = Example("segment", "<image>Please segment x.", "It is [SEG]." + END, ("polyp",), learn_words=False)
    free = Example("vqa", "<image>\nWhat?", "a polyp" + END)
    given = text_batch([sheet(record, known, free)], material.processor, material.numbers)
    words = [i for i in given.batch.labels[0].tolist() if i != IGNORED]
    assert material.processor.decode(words) == free.answer
    assert given.target.tolist() == [material.numbers["polyp"]]
    assert given.present.tolist() == [True]


def test_a_target_that_the_source_says_nothing_of_has_no_mask(training: RecordSet, material: TrainingData) -> None:
    normal = next(r for r in training if r.dataset == "busi-breast-us" and not r.regions)
    record = replace(normal, dataset="of an unknown part of the body", foreign=(), image_class="")
    rng = np.random.default_rng(0)
    assert record.absent == ("breast lesion",)
    asked = [segment_example(record, target, rng) for target in ("nerve", "breast lesion")]
    given = text_batch([sheet(record, *asked)], material.processor, material.numbers, 16)
    assert given.batch.seg_image.tolist() == [-1, 0]
    assert given.truth.shape == (1, 16, 16)
    assert given.truth.sum() == 0
    assert given.target.tolist() == [material.numbers["nerve"], material.numbers["breast lesion"]]


def test_a_mirrored_picture_has_mirrored_words_masks_and_box(training: RecordSet, material: TrainingData) -> None:
    record = endoscopy(training)
    rng = np.random.default_rng(0)
    example = Example("report", "<image>On the left?", "<p> polyp. upper left </p> [SEG]" + END, ("polyp",))
    plain = text_batch([sheet(record, example)], material.processor, material.numbers, 64)
    flipped = text_batch([sheet(record, example, mirror=True)], material.processor, material.numbers, 64)
    assert torch.equal(plain.truth.flip(-1), flipped.truth)
    assert torch.allclose(plain.batch.grounding_pixels.flip(-1), flipped.batch.grounding_pixels, atol=0.05)
    text = material.processor.decode(flipped.batch.input_ids[0].tolist())
    assert "upper right" in text
    assert "On the right?" in text
    boxed = segment_example(record, "polyp", rng)
    region = Region(2, 3, 20, 30)
    left = text_batch([sheet(record, boxed, region=region)], material.processor, material.numbers).batch.tiles
    right = text_batch([sheet(record, boxed, region=region, mirror=True)], material.processor, material.numbers)
    assert torch.allclose(left.flip(-1), right.batch.tiles, atol=0.2)
    assert mirror_words("Left, leftover and right") == "Right, leftover and left"


def test_masks_move_with_their_picture() -> None:
    mask = torch.zeros(3, 1, 64, 64)
    mask[:, 0, 20:40, 24:44] = 1
    pictures = mask.expand(3, 3, 64, 64) * 0.8 + 0.1
    rngs = [np.random.default_rng(n) for n in range(3)]
    moved, moved_mask = augment(pictures, mask, np.array([True, False, True]), 64, rngs)
    assert not torch.equal(moved_mask, mask)
    for picture, where in zip(moved, moved_mask[:, 0], strict=True):
        inside, outside = picture[:, where > 0.99], picture[:, where < 0.01]
        assert inside.min() > outside.max() - 1e-4


def test_mask_batches_hold_what_is_there_and_what_is_not(training: RecordSet, material: TrainingData) -> None:
    sampler = Sampler(training, 0, training.lengths("regions") > 0)
    batch = mask_batch(list(sampler.samples(0, 6)), material.numbers, 32, 4, 16, 8)
    assert batch.pixels.shape == (6, 3, 32, 32)
    assert batch.truth.shape[1:] == (16, 16)
    assert batch.noise.shape == (len(batch.target), 8)
    assert (batch.truth.sum(dim=(1, 2)) > 0).equal(batch.present)
    assert batch.present.any()
    assert not batch.present.all()


def test_small_data_sets_are_drawn_more_often_than_their_share(training: RecordSet) -> None:
    sampler = Sampler(training, 0)
    drawn = Counter(training.group_names[training.groups[sampler.draw(sampler.rng(0, n))]] for n in range(3000))
    sizes = np.bincount(training.groups)
    expected = np.sqrt(sizes) / np.sqrt(sizes).sum()
    for number, name in enumerate(training.group_names):
        assert abs(drawn[name] / 3000 - expected[number]) < 0.04
    with pytest.raises(DataError, match="No record"):
        Sampler(training, 0, np.zeros(len(training), bool))


def test_held_out_patients_are_never_trained_on(training: RecordSet, material: TrainingData) -> None:
    own = TrainingData(training, material.processor, 3, validation_share=0.3)
    held = {(r.dataset, r.group) for r, out in zip(training, own.held_out, strict=True) if out}
    assert 0 < own.held_out.sum() < len(training)
    seen = {(r.dataset, r.group) for r, _ in own.sampler(0).samples(0, 300)}
    assert not held & seen
    kept = {(r.dataset, r.group) for r, out in zip(training, own.held_out, strict=True) if not out}
    assert not held & kept


@pytest.mark.parametrize("kind", ["grounding", "language", "joint"])
def test_processes_share_the_step_of_one(kind: str, model: UniBiomed, material: TrainingData) -> None:
    stage = next(s for s in RECIPES["toy"]().stages if s.kind == kind)
    stage = replace(stage, batch_size=4, micro_batch=1)
    task = KINDS[kind](model, material, stage)

    def totals(*processes: Steps) -> tuple[int, dict[str, float], dict[str, float]]:
        counts: Counter[str] = Counter()
        sums: Counter[str] = Counter()
        batches = [batch for steps in processes for batch in steps[1]]
        with torch.no_grad():
            for batch in batches:
                counts.update(task.counts(batch))
                sums.update({k: float(v) for k, v in task(batch).items()})
        return len(batches), dict(counts), dict(sums)

    one, counts, sums = totals(Steps(task, 0, 1))
    two, counts_of_two, sums_of_two = totals(Steps(task, 0, 2), Steps(task, 1, 2))
    assert (one, two) == (4, 4)
    assert counts == pytest.approx(counts_of_two)
    assert sums == pytest.approx(sums_of_two, rel=1e-5)


def test_micro_batches_hold_rows_of_like_length(model: UniBiomed, material: TrainingData) -> None:
    stage = replace(RECIPES["toy"]().stages[1], batch_size=6, micro_batch=2)
    task = KINDS["language"](model, material, stage)
    steps = Steps(task, 0, 1)
    items = task.plan(0)
    lengths = sorted(task.length(item) for item in items)
    widths = [batch.batch.input_ids.shape[1] for batch in steps[0]]
    assert widths == [lengths[1], lengths[3], lengths[5]]


def test_a_batch_that_cannot_be_dealt_is_an_error(model: UniBiomed, material: TrainingData) -> None:
    stage = replace(RECIPES["toy"]().stages[0], batch_size=6, micro_batch=2)
    with pytest.raises(ConfigError, match="cannot be dealt"):
        Steps(KINDS["grounding"](model, material, stage), 0, 2)


def test_steps_are_the_same_read_ahead(model: UniBiomed, material: TrainingData) -> None:
    stage = replace(RECIPES["toy"]().stages[0], steps=3)
    steps = Steps(KINDS["grounding"](model, material, stage), 0, 1)
    here = [(n, b[0].pixels) for n, b in steps.from_step(1, 0)]
    ahead = [(n, b[0].pixels) for n, b in steps.from_step(1, 1)]
    assert [n for n, _ in here] == [1, 2]
    assert all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in zip(here, ahead, strict=True))


def test_a_sheet_follows_from_its_generator(training: RecordSet, material: TrainingData) -> None:
    record = endoscopy(training)

    def made(seed: int) -> tuple[Example, ...]:
        return make_sheet(record, np.random.default_rng(seed), material.known, False, 2).examples

    assert made(4) == made(4)
    assert any(made(4) != made(n) for n in range(5, 9))
