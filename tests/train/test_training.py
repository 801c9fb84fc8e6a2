"""The whole training path at toy size, from a folder of data sets to an exported model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from tiny_data import write_tree

from train import checkpoint
from train.config import override
from train.data import records as record_files
from train.data.batches import augment, draw_examples, language_batch, may_mirror, phrase_batch, target_names
from train.data.examples import make_example, sampling_weights
from train.data.records import Record, RegionRecord, check_leakage, encode_mask, resize_mask
from train.data.sentences import brightness, describe, place, side, size_word
from train.evaluate import failures, markdown, predict, score
from train.loop import target_codes, text_loss
from train.prepare import prepare
from train.recipes import RECIPES
from train.run import run
from unibiomed_core.errors import ConfigError, DataError
from unibiomed_core.tasks import END, parse_answer


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def prepared(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("records")
    prepare(data, out, 64, lambda line: None)
    return out


@pytest.fixture(scope="module")
def exported(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return run("toy", [f"data={data}", f"out={tmp_path_factory.mktemp('run')}", "record_side=64"])


def test_records_hold_what_the_tree_shows(prepared: Path) -> None:
    training = record_files.load(prepared / "train.parquet")
    summary = json.loads((prepared / "summary.json").read_text())
    assert summary["refused"] == []
    assert summary["records"]["kvasir-seg/train"] == 6
    lesion_free = [r for r in training if r.dataset == "busi-breast-us" and not r.regions]
    assert lesion_free
    assert all(r.absent == ("breast lesion",) and r.findings_known for r in lesion_free)
    slices = [r for r in training if r.volume.endswith("v0_CT")]
    assert len(slices) == 3  # every fourth of nine
    assert {r.modality for r in slices} == {"ct"}
    asked = [r for r in training if r.dataset == "vqa-rad"]
    assert asked[0].modality == ""
    assert asked[0].questions[0].answer == "Yes"


def test_unknown_layout_and_damaged_item_are_told(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no dataset\.json"):
        prepare(tmp_path, tmp_path / "out", 64, lambda line: None)
    broken = write_tree(tmp_path / "tree")
    (broken / "kvasir-seg" / "images" / "p0.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match="kvasir-seg/p0"):
        prepare(broken, tmp_path / "out", 64, lambda line: None)


def test_leakage_is_an_error(prepared: Path) -> None:
    training = record_files.load(prepared / "train.parquet")
    with pytest.raises(DataError, match="Leakage"):
        check_leakage(training, training[:1])


def test_toy_recipe_exports_a_model_that_answers(exported: Path, prepared: Path, tmp_path: Path) -> None:
    from unibiomed_core.engine.engine import Engine

    engine = Engine.load(str(exported), device="cpu")
    assert engine.info.targets["endoscopy"] == ("polyp",)
    predict(engine, record_files.load(prepared / "test.parquet"), tmp_path, lambda line: None)
    table = score(tmp_path, record_files.load(prepared / "train.parquet"))
    row = next(r for r in table["masks"] if r["target"] == "polyp")
    assert row["present"] == 2
    assert 0 <= row["dice"] <= 1
    assert "polyp" in markdown(table)


def test_resume_gives_the_same_weights(data: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    common = [f"data={data}", "record_side=64", "only=grounding", "grounding.warmup=1"]
    whole = run("toy", [*common, f"out={tmp_path / 'whole'}"]).parent
    # Stopped after two steps of four: the schedule is that of four steps, the checkpoint that of two.
    half = tmp_path / "half"
    with pytest.raises(KeyboardInterrupt):
        _interrupted(half, common)
    run("toy", [*common, f"out={half}"])
    a = (whole / "grounding" / "checkpoint" / "model.safetensors").read_bytes()
    b = (half / "grounding" / "checkpoint" / "model.safetensors").read_bytes()
    assert a == b


def _interrupted(folder: Path, settings: list[str]) -> None:
    original = checkpoint.save

    def save_then_stop(*arguments: object) -> None:
        original(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", save_then_stop)
        run("toy", [*settings, f"out={folder}"])


def test_the_commands_of_the_readme_run_as_files(data: Path, tmp_path: Path, root: Path) -> None:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=tmp_path)

    done = call(str(root / "train" / "run.py"), "toy", f"data={data}", "out=run", "record_side=64", "threads=1")
    assert done.returncode == 0, done.stderr[-800:]
    assert "exported to run/export" in done.stdout
    done = call(str(root / "train" / "evaluate.py"), "run/export", "run/records", "evaluation")
    assert done.returncode == 0, done.stderr[-800:]
    assert "| kvasir-seg (endoscopy) | polyp |" in (tmp_path / "evaluation" / "table.md").read_text()
    done = call(str(root / "train" / "run.py"), "mimi")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "mini" in done.stderr


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(ConfigError, match="mini"):
        run("mnii", [])
    with pytest.raises(ConfigError, match="save_every"):
        override(RECIPES["toy"](), ["save_evry=3"])
    with pytest.raises(ConfigError, match="int"):
        override(RECIPES["toy"](), ["save_every=often"])
    changed = {s.name: s.steps for s in override(RECIPES["toy"](), ["joint.steps=9"]).stages}
    assert changed["joint"] == 9


def test_examples_follow_from_seed_and_step_alone(prepared: Path) -> None:
    training = record_files.load(prepared / "train.parquet")
    weights = sampling_weights(training)
    assert draw_examples(training, weights, 6, 1, 5) == draw_examples(training, weights, 6, 1, 5)
    assert draw_examples(training, weights, 6, 1, 5) != draw_examples(training, weights, 6, 1, 6)


def test_every_seg_has_one_target_and_answers_end(prepared: Path) -> None:
    training = record_files.load(prepared / "train.parquet")
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(30):
        for index, record in enumerate(training):
            if example := make_example(record, index, rng):
                seen.add(example.task)
                assert example.answer.count("[SEG]") == len(example.targets)
                assert example.answer.endswith(END)
                parsed = parse_answer(example.answer, "x")
                assert sum(p.seg is not None for p in parsed.phrases) == len(example.targets)
    assert seen == {"segment", "disease", "report", "roi_class", "roi_describe", "vqa"}


def test_only_answers_carry_loss(prepared: Path, exported: Path) -> None:
    from unibiomed_core.model.weights import load

    model, processor = load(exported)
    training = record_files.load(prepared / "train.parquet")
    examples = draw_examples(training, sampling_weights(training), 4, 0, 0)
    given = language_batch(training, examples, processor, np.random.default_rng(0), with_masks=True)
    for row, example in enumerate(examples):
        answer = [i for i in given.batch.labels[row].tolist() if i != -100]
        assert processor.decode(answer) == example.answer
    assert len(given.truth) == len(given.present) == sum(len(e.targets) for e in examples)
    hidden = torch.zeros(*given.batch.input_ids.shape, model.config.language.hidden)
    uniform = torch.log(torch.tensor(float(model.config.language.vocabulary)))
    assert torch.isclose(text_loss(model, hidden, given.batch.labels), uniform, atol=1e-4)


def test_phrases_ask_every_target_of_a_modality_on_shared_pictures(prepared: Path, exported: Path) -> None:
    from unibiomed_core.model.weights import load

    _, processor = load(exported)
    training = record_files.load(prepared / "train.parquet")
    given, owner = phrase_batch(training, processor, np.random.default_rng(1), pictures=3, per_picture=2)
    assert len(given.batch.tiles) == 3
    assert owner.tolist() == [0, 0, 1, 1, 2, 2]
    assert (given.batch.input_ids == processor.ids.seg).sum(dim=1).tolist() == [1] * 6
    names = [target_names()[c] for c in given.codes]
    texts = [processor.decode(row.tolist()) for row in given.batch.input_ids]
    assert all(name in text for name, text in zip(names, texts, strict=True))


def test_masks_move_with_their_picture() -> None:
    rng = np.random.default_rng(5)
    mask = torch.zeros(3, 1, 64, 64)
    mask[:, 0, 20:40, 24:44] = 1
    pictures = mask.expand(3, 3, 64, 64) * 0.8 + 0.1
    moved, moved_mask = augment(pictures, mask, np.array([True, False, True]), 64, rng)
    for picture, where in zip(moved, moved_mask[:, 0], strict=True):
        inside, outside = picture[:, where > 0.99], picture[:, where < 0.01]
        assert inside.min() > outside.max() - 1e-4


def test_sided_pictures_are_never_mirrored() -> None:
    def record(target: str) -> Record:
        region = RegionRecord(target, encode_mask(np.ones((8, 8), bool)))
        return Record("a", "d", "train", "g", "ct", "", b"", (8, 8), regions=(region,))

    assert may_mirror(record("polyp"))
    assert not may_mirror(record("left kidney"))
    assert not may_mirror(record("liver"))


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


def test_codes_are_fixed() -> None:
    assert torch.equal(target_codes(16), target_codes(16))


def test_a_row_that_does_not_beat_its_baseline_is_named() -> None:
    row = {
        "present": 3, "absent": 2, "dice": 0.2, "dice_empty_mask": 0.0, "dice_mean_shape": 0.5,
        "presence_accuracy": 0.6, "presence_majority": 0.6,
    }  # fmt: skip
    assert failures(row) == ["fails: Dice", "fails: presence"]
    assert failures({**row, "dice": 0.6, "presence_accuracy": 0.8}) == []
