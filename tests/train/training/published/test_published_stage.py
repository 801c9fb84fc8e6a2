"""The published training step: its numbers against those of the published code, its list, rows and pictures."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.train.toy_runs import HEIGHT, WIDTH, disc, material, records_of_every_role, toy_model
from tests.train.training.published.test_losses import check_gradients, relative
from train.config import Stage
from train.data.records import RecordSet, region_record
from train.recipes import RECIPES
from train.training.loop import Steps, learning_rate, resolved
from train.training.published.losses import IGNORED
from train.training.published.samples import ROLES, PublishedSamples, box_of, made_sample
from train.training.published.stage import PublishedBatch, PublishedStage, published_batch
from train.training.published.wordings import ANSWERS, QUESTIONS
from train.training.stages import KINDS
from unibiomed_core.model.weights import load
from unibiomed_core.tasks import TASKS

STAGE = Stage("published", "published", steps=3, batch_size=4, learning_rate=4e-5, micro_batch=2, trained="all")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> RecordSet:
    return records_of_every_role(tmp_path_factory.mktemp("records"))


@pytest.fixture(scope="module")
def task(records: RecordSet) -> PublishedStage:
    model, processor = toy_model()
    made = KINDS["published"](model, material(records, processor), STAGE)
    assert isinstance(made, PublishedStage)
    return made


@pytest.mark.parametrize("case", ["mixed", "text_only"])
def test_losses_and_gradients_equal_the_published_ones(case: str, shared: Path, records: RecordSet) -> None:
    folder = shared / "parity" / "tiny-a"
    facts = json.loads((folder / "expected.json").read_text())["train"]
    tensors = load_file(folder / "expected.safetensors")
    model, processor = load(folder)
    stage = PublishedStage(model, material(records, processor), STAGE)
    model.requires_grad_(True)
    pictures = [np.asarray(Image.open(folder / f"image_{n}.png").convert("RGB")) for n in range(3)]
    tiles = torch.cat([processor.tiles(pictures[0]), processor.tiles(pictures[1]), processor.frame(pictures[2])])
    ids = tensors[f"train/{case}/input_ids"].long()
    shown = int((ids == processor.ids.image_context).sum()) // model.config.vision.tokens_per_tile
    grounded = case == "mixed"
    batch = PublishedBatch(
        ids,
        tensors[f"train/{case}/attention_mask"].long(),
        tensors[f"train/{case}/labels"].long(),
        tiles=tiles if grounded else tiles[-1:][:shown],
        pixels=torch.stack([processor.grounding_pixels(p) for p in pictures[:2]]),
        seg=torch.tensor([0] * 5 + [1, 2, 1, 2, 1] if grounded else [], dtype=torch.int64),
        image=torch.tensor([0] * 5 + [1] * 5 if grounded else [], dtype=torch.int64),
        truth=tensors["train/mixed/gt_low_res_masks"],
        seed=0,
    )
    losses = stage.losses(batch, tensors["train/mixed/point_coords"] if grounded else None)
    names = {"text": "llm_loss", "mask": "loss_mask", "dice": "loss_dice"}
    for ours, theirs in names.items():
        assert relative(losses[ours].item(), facts[case][theirs]) < 1e-4, ours
    total = torch.stack(list(losses.values())).sum()
    assert relative(total.item(), facts[case]["total"]) < 1e-4
    total.backward()
    if grounded:
        check_gradients(model, case, facts[case]["grad_norms"], tensors)
    else:  # SAM 2 was run, without weight
        gradients = [p.grad for p in model.grounder.parameters() if p.grad is not None]
        assert gradients
        assert not any(gradient.any() for gradient in gradients)


def test_the_list_repeats_small_sets_and_shows_each_once_a_pass(records: RecordSet) -> None:
    usable = np.ones(len(records), bool)
    samples = PublishedSamples(records, 0, usable)
    samples.sample(0)
    assert sorted(samples._order[1]) == list(range(len(samples)))
    roles = Counter(samples.entry(int(n), np.random.default_rng(0)).role for n in np.unique(samples._list))
    assert roles == {
        "segment": 6, "disease": 4, "grounded_vqa": 1, "report": 1, "roi_class": 6, "region_report": 1, "volume": 1,
    }  # fmt: skip
    # Two polyps fill 5000 by 2500 repetitions each, one entry with a report is shown twice, a volume ten times.
    repeated = Counter(samples._role[samples._list].tolist())
    names = list(ROLES)
    assert repeated[names.index("segment")] == 5000 + 5000 + 3 * 1666
    assert repeated[names.index("report")] == 2
    assert repeated[names.index("volume")] == 10
    kept = usable.copy()
    kept[:7] = False
    assert {s.records[0].id for s in map(PublishedSamples(records, 0, kept).sample, range(40))} == {records[7].id}


def test_the_order_follows_from_seed_and_position_alone(records: RecordSet) -> None:
    def drawn(seed: int, positions: range) -> list[tuple[str, str]]:
        samples = PublishedSamples(records, seed, np.ones(len(records), bool))
        return [(s.question, s.answer) for s in map(samples.sample, positions)]

    assert drawn(1, range(6))[3:] == drawn(1, range(3, 6))
    assert drawn(1, range(6)) != drawn(2, range(6))


def test_wordings_are_as_many_as_published() -> None:
    assert {role: len(set(questions)) for role, questions in QUESTIONS.items()} == {
        "segment": 16, "volume": 8, "disease": 8, "grounded_vqa": 8, "report": 4, "roi_class": 9, "region_report": 30,
    }  # fmt: skip
    assert len(ANSWERS["segment"]) == 5
    for role in ("segment", "disease", "report", "roi_class", "grounded_vqa"):
        published = TASKS[role].instruction.replace("{target}", "{target}" if role == "segment" else "{anatomy}")
        plain = [question.replace("\n", "") for question in QUESTIONS[role]]
        assert published.replace("\n", "") in plain


def test_rows_have_the_published_text_and_loss_on_the_answer(task: PublishedStage, records: RecordSet) -> None:
    processor = task.material.processor
    for role, index in (("segment", 0), ("report", 3), ("roi_class", 0), ("region_report", 4)):
        sample = made_sample(role, records[index], 0 if records[index].regions else -1, np.random.default_rng(1))
        batch = published_batch([sample], 64, processor)
        text = processor.decode(batch.input_ids[0].tolist())
        answer = processor.decode([n for n in batch.labels[0].tolist() if n != IGNORED])
        assert answer == sample.answer
        assert answer.endswith("<|end|>")
        newline = role == "report"
        assert ("<|end|>\n<|assistant|>\n" in text) == newline
        assert text.endswith("<|end|>\n" if newline else "<|end|>")
        assert text.startswith("<|user|>\n<img>")
        assert "</img>\n" in text
        assert len(batch.tiles) == 1
    assert made_sample("report", records[3], 0, np.random.default_rng(0)).answer == (
        "<p> liver tumour. one lesion. </p> [SEG]<|end|>"
    )
    assert made_sample("region_report", records[4], -1, np.random.default_rng(0)).answer == "A clear View.<|end|>"
    assert "no findings." in made_sample("disease", records[2], -1, np.random.default_rng(0)).answer


def test_objects_are_five_a_picture_and_a_volume_shares_one_state(task: PublishedStage) -> None:
    samples = task.samples
    volume = next(int(n) for n in np.unique(samples._list) if samples._role[n] == list(ROLES).index("volume"))
    rng = np.random.default_rng(0)
    shown = [samples.entry(0, rng), samples.entry(volume, rng)]
    batch = task.collate(shown)
    assert shown[1].records == tuple(sorted(shown[1].records, key=lambda r: r.slice))
    assert len(batch.pixels) == 11
    assert len(batch.truth) == 55
    assert batch.seg.tolist() == [0] * 5 + [1] * 50
    assert batch.image.tolist() == [n for n in range(11) for _ in range(5)]
    assert set(batch.truth.unique().tolist()) == {0.0, 1.0}
    losses = task(batch)
    assert all(torch.isfinite(value) for value in losses.values())
    assert torch.equal(task(batch)["mask"], losses["mask"])  # points follow from the sample
    assert not torch.equal(task(replace(batch, seed=batch.seed + 1))["mask"], losses["mask"])


def test_a_batch_without_masks_runs_sam_without_weight(task: PublishedStage, records: RecordSet) -> None:
    samples = [made_sample("region_report", records[4], -1, np.random.default_rng(n)) for n in range(2)]
    encodes: list[int] = []
    handle = task.model.grounder.sam.vision_encoder.register_forward_pre_hook(
        lambda _, given: encodes.append(len(given[0]))
    )
    losses = task(task.collate(samples))
    handle.remove()
    assert encodes == [2]
    assert losses["mask"].item() == losses["dice"].item() == 0
    assert losses["mask"].requires_grad


def test_the_box_is_that_of_a_large_piece_one_pixel_beyond() -> None:
    mask = disc(30, 30) | disc(80, 60, 4)
    for seed in range(6):
        assert box_of(mask, np.random.default_rng(seed)).box == (18, 18, 43, 43)
    edge = np.zeros((HEIGHT, WIDTH), bool)
    edge[60:, 50:] = True
    assert box_of(edge, np.random.default_rng(0)).box == (50, 60, WIDTH, HEIGHT)


def test_a_box_at_the_border_is_drawn(task: PublishedStage, records: RecordSet) -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[60:, 50:] = True
    given = replace(records[0], regions=(region_record("polyp", mask),))
    sample = made_sample("roi_class", given, 0, np.random.default_rng(0))
    bare = made_sample("region_report", replace(given, regions=()), -1, np.random.default_rng(0))
    with_box, without = (published_batch([s], 64, task.material.processor).tiles for s in (sample, bare))
    assert not torch.equal(with_box, without)


def test_micro_batches_are_the_same_for_one_process_and_two(task: PublishedStage) -> None:
    whole = Steps(task, 0, 1)[1]
    halves = [Steps(task, process, 2)[1] for process in range(2)]
    assert len(whole) == 2
    for ours, (theirs,) in zip(whole, halves, strict=True):
        assert torch.equal(ours.input_ids, theirs.input_ids)
        assert ours.seed == theirs.seed


def test_the_schedule_is_the_published_one() -> None:
    (stage,) = RECIPES["as_published"]().stages
    stage = resolved(stage, samples=128_000)
    assert stage.steps == 10_000
    assert stage.warmup == 500
    assert learning_rate(stage, 0) == pytest.approx(4e-5 * 1e-5)
    assert learning_rate(stage, 250) == pytest.approx(2e-5, rel=1e-4)
    assert learning_rate(stage, 500) == pytest.approx(4e-5)
    assert learning_rate(stage, 5250) == pytest.approx(2e-5)
    assert learning_rate(stage, 10_000) == pytest.approx(0)
