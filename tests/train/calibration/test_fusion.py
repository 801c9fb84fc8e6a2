"""Checks fused to one probability: what is fitted is what made the cases, on patients that it did not see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit

from tests.train.calibration.test_calibrate import polyps
from tests.train.toy_runs import HEIGHT, WIDTH, disc, record, toy_model
from train.calibration import calibrate, checks, fusion, scene, standing
from train.calibration.calibrate import calibrated, fuse_checks
from train.calibration.checks import CODES, KEEPS_ALL, Rows, collect, is_right
from train.calibration.fusion import best_strength, cross_fitted, fit, fitted, left, probabilities, threshold
from train.calibration.reliability import write_reliability
from train.calibration.scene import SceneFit, fit_scene
from train.calibration.standing import StandingSettings, held_out, settings
from train.data.records import Record, RecordSet, RegionRecord, region_record
from train.run import main
from unibiomed_core.engine.engine import Engine
from unibiomed_core.errors import ConfigError, DataError, WeightsError
from unibiomed_core.files import describe_file, read_json
from unibiomed_core.metrics.labels import auc, expected_calibration_error, log_loss, reliability
from unibiomed_core.model.config import Fusion, SceneSizes
from unibiomed_core.model.scene import SceneHead
from unibiomed_core.model.weights import load, save
from unibiomed_core.types import Check, CroppedMask, Evidence
from unibiomed_core.updates import Done, Progress

MASK, OPEN, REGION, NEIGHBOURS = (CODES.index(code) for code in ("mask", "open", "region", "neighbours"))


def rows(weights: Sequence[float], count: int = 2000, patients: int = 100, seed: int = 3) -> Rows:
    """One in four stands in a normal picture; right by a rule with these weights of mask, open and region."""
    rng = np.random.default_rng(seed)
    told = np.full((count, len(CODES)), np.nan)
    told[:, [MASK, OPEN, REGION]] = rng.normal((0.5, -1, 1), (1, 3, 2), (count, 3))
    shown = told[:, [MASK, OPEN, REGION]] - (0.5, -1, 1)
    right = rng.random(count) < expit(shown @ np.array(weights))
    names = np.array([f"p{i % patients}" for i in range(count)])
    return Rows(
        told, expit(told[:, MASK]), told[:, OPEN] > -1, right, names, np.arange(count) % 4 == 0, count, count // 4
    )


def error(stated: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    return expected_calibration_error(reliability(stated, right))


def test_the_rule_that_made_the_cases_is_found() -> None:
    given, fresh = rows([1.0, 0.5, 0.0]), rows([1.0, 0.5, 0.0], seed=4)
    rule = fit(given, best_strength(given))
    assert rule.weights["mask"] == pytest.approx(1.0, abs=0.2)
    assert rule.weights["open"] == pytest.approx(0.5, abs=0.1)
    assert rule.weights.get("region", 0.0) < 0.05
    assert rule.means["open"] == pytest.approx(-1, abs=0.2)
    assert rule.offset == pytest.approx(0, abs=0.15)
    told = probabilities(rule, fresh)
    assert error(told, fresh.right) < 0.05 < error(fresh.presence, fresh.right)
    assert auc(told, fresh.right) > auc(fresh.presence, fresh.right) + 0.05


def test_no_check_counts_against_what_it_agrees_with() -> None:
    rule = fit(rows([1.0, -0.7, 0.0]), 1.0)
    assert "open" not in rule.weights
    agreed, refused = ({"mask": 0.0, "open": value} for value in (5.0, -5.0))
    assert rule.probability(0.5, agreed) == rule.probability(0.5, refused)


def test_a_check_that_was_not_made_counts_as_its_mean() -> None:
    given = rows([1.0, 0.5, 0.0])
    told = given.logits.copy()
    told[::2, OPEN] = np.nan
    rule = fit(replace(given, logits=told), 1.0)
    assert rule.means["open"] == pytest.approx(np.nanmean(told[:, OPEN]), abs=1e-3)
    assert rule.probability(0.5, {"mask": 1.0}) == rule.probability(0.5, {"mask": 1.0, "open": rule.means["open"]})
    assert "neighbours" not in rule.weights  # never made


def test_weights_shrink_and_chance_is_shrunk_away() -> None:
    given = rows([1.0, 0.5, 0.0], count=200)
    loose, tight = (fit(given, strength).weights["open"] for strength in (0.3, 300.0))
    assert 0 < tight < loose
    assert best_strength(rows([0.0, 0.0, 0.0], count=60, patients=20)) > best_strength(given)


def test_a_patient_is_judged_by_a_rule_of_others() -> None:
    given = rows([1.0, 0.5, 0.0], count=200, patients=40)
    before = cross_fitted(given, 1.0)
    mine = given.patients == "p7"
    after = cross_fitted(replace(given, right=np.where(mine, ~given.right, given.right)), 1.0)
    assert (after[mine] == before[mine]).all()
    assert (after != before).any()


def test_rows_that_are_all_right_leave_presence_alone() -> None:
    given = rows([1.0, 0.5, 0.0])
    alike = given.take(given.right)
    assert fit(alike, 1.0) == KEEPS_ALL
    assert probabilities(KEEPS_ALL, alike) == pytest.approx(alike.presence)


def judged_rows(right: Sequence[int], normal: Sequence[int], normal_pictures: int) -> Rows:
    count = len(right)
    told = np.zeros((count, len(CODES)))
    names = np.array([f"p{i}" for i in range(count)])
    there = np.array(right, bool)
    return Rows(told, np.full(count, 0.5), there, there, names, np.array(normal, bool), count, normal_pictures)


def test_the_threshold_is_the_lowest_that_leaves_few_false_rows_on_normal_pictures() -> None:
    stated = np.array([0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.2, 0.1, 0.05, 0.04])
    right, normal = [1, 1, 0, 1, 0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 1, 0, 1, 1, 1, 1]
    few = judged_rows(right, normal, normal_pictures=2)  # at most 0.6 rows: none
    assert 0.8 < threshold(stated, few) < 0.8002
    assert left(stated >= threshold(stated, few), few).to_dict() == {
        "kept": 0.5, "precision": 1.0, "false_per_normal": 0.0,
    }  # fmt: skip
    some = judged_rows(right, normal, normal_pictures=4)  # one
    assert 0.6 < threshold(stated, some) < 0.6002
    assert left(stated >= threshold(stated, some), some).kept == 0.75
    more = judged_rows(right, normal, normal_pictures=10)  # three
    assert 0.1 < threshold(stated, more) < 0.1002
    assert left(stated >= threshold(stated, more), more).false_per_normal == 0.3


def test_where_nothing_has_to_fall_or_too_much_would_the_threshold_is_balanced() -> None:
    stated = np.array([0.95, 0.9, 0.8, 0.7, 0.2, 0.1])
    given = judged_rows([0, 1, 1, 1, 0, 0], [1, 0, 0, 0, 1, 1], normal_pictures=3)  # none: every right one would go
    assert threshold(stated, given) == pytest.approx(0.45, abs=1e-3)
    assert threshold(stated, replace(given, normal_pictures=20)) == pytest.approx(0.45, abs=1e-3)
    nothing_normal = replace(given, normal=np.zeros(6, bool), normal_pictures=0)
    assert threshold(stated, nothing_normal) == pytest.approx(0.45, abs=1e-3)
    assert left(stated >= 0.45, nothing_normal).to_dict()["false_per_normal"] is None


def test_what_was_fitted_is_told_with_cases_and_both_sides(tmp_path: Path) -> None:
    given = rows([1.0, 0.5, 0.0], count=400)
    found = fitted(given, started=True)
    assert found is not None
    assert (found.cases, found.patients, found.normal_pictures) == (400, 100, 100)
    assert found.after.log_loss < found.before.log_loss == pytest.approx(log_loss(given.presence, given.right))
    assert found.after.auc > found.before.auc
    assert found.all_told.kept == 1.0 > found.told.kept > 0.5
    assert found.told.false_per_normal < found.all_told.false_per_normal
    judged = cross_fitted(given, found.strength) >= found.rule.threshold
    assert found.told.kept == judged[given.right].mean()
    assert found.counted.kept == (given.logits[:, OPEN] > -1)[given.right].mean()
    for part in ("400 abnormal rows", "of 100 patients", "may have been", f"{found.after.auc:.2f}"):
        assert part in found.sentence
    assert "may have been" not in replace(found, started=False).sentence
    numbers, picture = write_reliability(found, tmp_path / "export")
    assert (numbers.name, picture.name) == ("export-checks.json", "export-checks.png")
    read = read_json(numbers, DataError, "", "")
    assert read["weights"] == found.rule.weights
    assert (read["before"]["kept"], read["after"]["auc"]) == (1.0, round(found.after.auc, 4))
    assert sum(row["cases"] for row in read["after"]["bins"]) == 400


def test_too_few_rows_give_no_rule() -> None:
    given = rows([1.0, 0.5, 0.0], count=400)
    assert fitted(given.take(given.patients < "p15"), False) is None  # seven patients
    seldom = given.right & (np.cumsum(given.right) <= fusion.MINIMUM_EACH - 1)
    assert fitted(given.take(seldom | ~given.right), False) is None


def test_a_row_is_right_where_a_tenth_of_it_lies_in_its_target_or_family() -> None:
    tumour = region_record("brain tumour", disc(30, 30, 12))
    known = record(1, modality="mri", regions=(tumour,), absent=("tumour core",), findings_known=True)
    masks = known.masks()
    inside, outside = disc(30, 30, 5), disc(80, 60, 5)
    assert is_right(inside, "brain tumour", known, masks) is True
    assert is_right(inside, "tumour core", known, masks) is True  # a part of what is annotated
    assert is_right(outside, "brain tumour", known, masks) is False
    assert is_right(outside, "brain tumour", replace(known, findings_known=False), masks) is None
    large = np.zeros((HEIGHT, WIDTH), bool)
    marked = masks["brain tumour"]
    large[marked & (np.cumsum(marked).reshape(marked.shape) <= 30)] = True
    large[60:66, :50] = True  # 30 of 330
    assert is_right(large, "brain tumour", known, masks) is False
    large[60:66, :50] = False
    large[60, :50] = True  # 30 of 80
    assert is_right(large, "brain tumour", known, masks) is True


def test_a_row_is_wrong_only_where_its_target_is_known_to_be_absent() -> None:
    row = disc(30, 30)
    bare = record(1, modality="xray")
    assert is_right(row, "consolidation", bare, {}) is None
    assert is_right(row, "consolidation", replace(bare, absent=("consolidation",)), {}) is False
    assert is_right(row, "consolidation", replace(bare, foreign=("consolidation",)), {}) is False
    lungs = (region_record("lung fields", disc(40, 30)),)
    assert is_right(row, "consolidation", replace(bare, image_class="normal", regions=lungs), {}) is False
    assert is_right(row, "consolidation", replace(bare, image_class="tuberculosis"), {}) is None
    assert is_right(row, "tumour core", replace(bare, absent=("brain tumour",)), {}) is False  # no whole, no part
    assert is_right(row, "brain tumour", replace(bare, absent=("tumour core",)), {}) is None
    boxed = replace(bare, regions=(RegionRecord("consolidation", box=(0, 0, 5, 5)),), findings_known=True)
    assert is_right(row, "consolidation", boxed, {}) is None


class Scripted:
    """An engine whose report has one row on the polyp of a picture, one beside it, and an organ."""

    def __init__(self) -> None:
        self.freed = 0

    def run(self, volume: object, request: object) -> Iterator[object]:
        yield Progress(0, 1)
        yield Done(cast("object", SimpleNamespace(findings=self.findings())))  # type: ignore[arg-type]

    def findings(self) -> list[SimpleNamespace]:
        found = []
        for place, score in (((30, 30), 0.9), ((80, 60), 0.2)):
            mask = CroppedMask.from_full(disc(*place, 6)[np.newaxis])
            said = Evidence(("segment",), (Check("mask", score > 0.5, score), Check("neighbours", False)))
            found.append(SimpleNamespace(mask=mask, target="polyp", presence=score, evidence=said))
        return [*found, SimpleNamespace(mask=found[0].mask, target="liver", presence=1.0, evidence=None)]

    def free(self) -> None:
        self.freed += 1


def pictures() -> list[Record]:
    regions = (region_record("polyp", disc(30, 30)),)
    return [
        record(1, regions=regions, findings_known=True),
        record(2, absent=("polyp",), findings_known=True),
        record(3),
        replace(record(4), modality=""),
    ]


def test_cases_are_the_abnormal_rows_of_known_truth() -> None:
    engine = Scripted()
    given = collect(cast("Engine", engine), pictures())
    assert (given.pictures, given.normal_pictures, given.unknown, engine.freed) == (3, 1, 2, 3)
    assert given.right.tolist() == [True, False, False, False]
    assert given.normal.tolist() == [False, False, True, True]
    assert given.counted.tolist() == [True, False, True, False]
    assert given.presence.tolist() == [0.9, 0.2, 0.9, 0.2]
    assert given.logits[:, MASK] == pytest.approx(logit([0.9, 0.2, 0.9, 0.2]))
    assert (given.logits[:, NEIGHBOURS] == -1).all()
    assert np.isnan(given.logits[:, [OPEN, REGION]]).all()
    assert given.patients[0] == "polyps/polyps/1"


def test_a_real_report_dismisses_nothing_while_cases_are_collected(tmp_path: Path) -> None:
    model, processor = toy_model()
    presence = replace(model.config.presence, threshold=0.0, fusion=KEEPS_ALL)
    known = {"endoscopy": ("polyp",)}
    model.config = processor.config = replace(model.config, targets=known, default_targets=known, presence=presence)
    given = collect(Engine(model, processor, device="cpu"), polyps(tmp_path, patients=3))
    assert given.pictures == 6
    assert len(given) > 0
    assert given.logits[:, MASK] == pytest.approx(logit(np.clip(given.presence, 1e-6, 1 - 1e-6)))
    assert not np.isnan(given.logits[:, OPEN]).any()


@pytest.fixture
def training(tmp_path: Path) -> RecordSet:
    return polyps(tmp_path / "records")


def given_rows(monkeypatch: pytest.MonkeyPatch, found: Rows) -> list[tuple[Fusion | None, list[str]]]:
    """Reports that give these rows; returns the rule that they were made with, and the pictures."""
    seen: list[tuple[Fusion | None, list[str]]] = []

    def collected(engine: Engine, records: Sequence[Record]) -> Rows:
        seen.append((engine.config.presence.fusion, [one.id for one in records]))
        return found

    monkeypatch.setattr(calibrate, "collect", collected)
    return seen


def test_a_newly_trained_model_gets_its_fusion(training: RecordSet, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = given_rows(monkeypatch, rows([1.0, 0.5, 0.0], count=400))
    model, processor = toy_model()
    kept = np.arange(len(training)) >= 12
    found = calibrated(model, processor, training, kept, {"licence": "none"}, False)
    assert seen == [(KEEPS_ALL, [training[i].id for i in range(12, 24)])]
    assert found.checks is not None
    assert found.config is model.config is processor.config
    assert found.config.presence.fusion == found.checks.rule
    assert found.config.facts["checks"] == found.checks.sentence
    assert found.config.facts["licence"] == "none"


def test_without_held_out_findings_checks_are_counted(training: RecordSet, monkeypatch: pytest.MonkeyPatch) -> None:
    given_rows(monkeypatch, rows([1.0, 0.5, 0.0], count=400).take(np.zeros(400, bool)))
    model, processor = toy_model()
    before = replace(model.config.presence, fusion=Fusion({"mask": 1.0}, {}, 0.0))
    model.config = processor.config = replace(model.config, presence=before)
    assert fuse_checks(model, processor, training, np.ones(24, bool), False) is None
    assert model.config.presence.fusion is None
    assert "not fused" in model.config.facts["checks"]


def test_a_model_that_stands_is_written_with_the_same_weights(
    training: RecordSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = given_rows(monkeypatch, rows([1.0, 0.5, 0.0], count=400))
    source, out = tmp_path / "model", tmp_path / "fused"
    save(*toy_model(), source, dtype="float32")
    arguments = ["calibrate", str(source), str(tmp_path / "records"), str(out), "share=0.3"]
    assert main(arguments) == 0
    expected = training.held_out(0.3)
    assert seen[0][1] == [training[int(i)].id for i in np.flatnonzero(expected)]
    for name in ("model.safetensors", "tokenizer.json"):
        assert (out / name).read_bytes() == (source / name).read_bytes()
    manifest = read_json(out / "manifest.json", DataError, "", "")
    assert manifest == {name: describe_file(out / name) for name in manifest}
    config = load(out)[0].config
    assert config.presence.fusion is not None
    assert replace(config, presence=replace(config.presence, fusion=None), facts={}) == load(source)[0].config
    assert "may have been" in config.facts["checks"]
    assert config.facts["checks"] in capsys.readouterr().out
    assert (tmp_path / "fused-checks.json").is_file()
    given_rows(monkeypatch, rows([1.0, 0.5, 0.0], count=10))
    assert main(arguments) == 1
    assert "Too few abnormal findings" in capsys.readouterr().err
    assert load(out)[0].config == config


def first_look() -> SceneFit:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        head = SceneHead(SceneSizes(("ct", "endoscopy"), ("chest", "bowel"), ("endoscopy/polyp",), image_size=64))
    return SceneFit(head.half().float().eval(), 0.75, None, {}, (120, 8))


def test_a_model_that_stands_gets_a_first_look_once_and_keeps_its_weights(
    training: RecordSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_rows(monkeypatch, rows([1.0, 0.5, 0.0], count=400))
    asked: list[list[bool]] = []

    def fitted_look(records: RecordSet, kept: NDArray[np.bool_]) -> SceneFit:
        asked.append(kept.tolist())
        return first_look()

    monkeypatch.setattr(calibrate, "fit_scene", fitted_look)
    save(*toy_model(), tmp_path / "model", dtype="float16")
    settings = [str(tmp_path / "records"), str(tmp_path / "once"), "share=0.3", "scene_share=0.5"]
    assert main(["calibrate", str(tmp_path / "model"), *settings]) == 0
    assert asked == [training.held_out(0.5).tolist()]
    before, after = (load(tmp_path / name)[0] for name in ("model", "once"))
    state = after.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in before.state_dict().items())
    assert all(torch.equal(value, state[f"scene.{name}"]) for name, value in first_look().head.state_dict().items())
    assert after.config.scene == first_look().head.sizes
    assert after.config.facts["scene"] == first_look().sentence
    settings[1] = str(tmp_path / "twice")
    assert main(["calibrate", str(tmp_path / "once"), *settings]) == 0
    assert len(asked) == 1
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "twice" / name).read_bytes() == (tmp_path / "once" / name).read_bytes()


def test_few_pictures_or_one_modality_give_no_first_look(training: RecordSet, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = np.zeros(len(training), bool)
    assert fit_scene(training, nobody) is None
    monkeypatch.setattr(scene, "LEAST_PICTURES", 1)
    assert fit_scene(training, nobody) is None
    model, processor = toy_model()
    calibrate.add_first_look(model, processor, training, nobody)
    assert (model.scene, model.config.scene) == (None, None)


def test_patients_of_sets_that_were_not_trained_on_are_held_out(training: RecordSet) -> None:
    some, more = (training.held_out(share).tolist() for share in (0.3, 0.5))
    assert held_out(training, StandingSettings(0.3, scene_share=0.5)).tolist() == some != more
    assert held_out(training, StandingSettings(0.0, ("polyps",), 0.5)).tolist() == more
    assert held_out(training, StandingSettings(0.5, scene_share=0.3)).tolist() == some  # the first look saw the others
    assert not held_out(training, StandingSettings(0.0)).any()
    with pytest.raises(ConfigError, match="elsewhere"):
        held_out(training, StandingSettings(0.0, ("elsewhere",)))
    assert settings(["share=0.1", "unseen=a,b", "scene_share=0.5"]) == StandingSettings(0.1, ("a", "b"), 0.5)
    for wrong in ("share=all", "share=1.5", "side=3"):
        with pytest.raises(ConfigError, match="share=S"):
            settings([wrong])


def test_only_a_folder_of_ours_is_reconfigured(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="MODEL RECORDS OUT"):
        standing.calibrate_standing(["model"], print)
    model, processor = toy_model()
    save(model, processor, tmp_path / "model", dtype="float32")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="checksum"):
        standing.weights.save_reconfigured(tmp_path / "model", model.config, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert checks.KEEPS_ALL.probability(0.25, {"mask": 3.0}) == 0.25
