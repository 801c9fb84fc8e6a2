"""Presence as a probability: close to what is found, shrunk where cases are few, from held-out patients if it can."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from tests.train.toy_runs import record, toy_model
from train.calibration import calibrate
from train.calibration.calibrate import calibrated
from train.calibration.presence import (
    MINIMUM_CASES,
    Cases,
    best_shrinkage,
    cross_fitted,
    fit,
    probabilities,
    thresholds,
)
from train.calibration.reliability import measured, write_reliability
from train.data import records as record_files
from train.data.records import RecordSet, region_record
from unibiomed_core.metrics.labels import expected_calibration_error, log_loss, reliability


def cases(offsets: Sequence[float], each: int = 400, scale: float = 0.5, seed: int = 3) -> Cases:
    """Targets a, b, ... whose scores are too sure by 1 / ``scale`` and shifted by their offset."""
    rng = np.random.default_rng(seed)
    names = np.repeat([chr(ord("a") + i) for i in range(len(offsets))], each)
    raw = rng.normal(0, 3, len(names))
    present = rng.random(len(names)) < expit(scale * raw + np.repeat(offsets, each))
    return Cases(expit(raw), present, names, np.array([f"p{i % 40}" for i in range(len(names))]))


def error(stated: NDArray[np.float64], present: NDArray[np.bool_]) -> float:
    return expected_calibration_error(reliability(stated, present))


def test_calibrated_probabilities_are_what_is_found() -> None:
    given, fresh = cases([-1, 0, 1]), cases([-1, 0, 1], seed=4)
    assert error(fresh.scores, fresh.present) > 0.1
    rule = fit(given, best_shrinkage(given))
    assert error(probabilities(rule, fresh), fresh.present) < 0.05
    assert rule.scale == pytest.approx(0.5, abs=0.05)
    assert list(rule.offsets) == ["a", "b", "c"]
    assert rule.offsets["a"] < rule.offsets["b"] < rule.offsets["c"]


def test_the_rule_never_counts_a_score_against_presence() -> None:
    given = cases([0, 0], scale=-0.5)
    assert fit(given, np.inf).scale > 0


def test_a_target_with_too_few_cases_takes_the_rule_of_all() -> None:
    many = cases([0, 2])
    few = np.concatenate([np.nonzero(many.targets == "a")[0], np.nonzero(many.targets == "b")[0][:10]])
    given = many.take(np.isin(np.arange(len(many)), few))
    assert given.rarer["b"] < MINIMUM_CASES
    rule = fit(given, 3.0)
    assert list(rule.offsets) == ["a"]
    assert list(thresholds(rule, given)[1]) == ["a"]
    assert rule.probability(0.6, "b") == rule.probability(0.6, "never asked")


def test_offsets_are_used_only_where_they_help_patients_that_were_not_fitted() -> None:
    own = cases([-2, 2, -1, 1], each=60)
    alone = Cases(own.scores, own.present, own.targets, own.targets)  # one patient a target, so nothing is learnt of it
    assert np.isinf(best_shrinkage(alone))
    assert np.isfinite(best_shrinkage(cases([-2, 2])))


def test_offsets_shrink_towards_none() -> None:
    given = cases([-1, 1], each=60)
    loose, tight = (fit(given, s).offsets for s in (3.0, 300.0))
    assert 0 < abs(tight["a"]) < abs(loose["a"])


def test_a_patient_is_judged_by_a_rule_of_others() -> None:
    given = cases([0], each=80)
    before = cross_fitted(given, np.inf)
    mine = given.patients == "p7"
    turned = Cases(given.scores, np.where(mine, ~given.present, given.present), given.targets, given.patients)
    after = cross_fitted(turned, np.inf)
    assert (after[mine] == before[mine]).all()
    assert (after != before).any()


def test_one_answer_alone_leaves_the_score_as_it_is() -> None:
    given = cases([0])
    given = given.take(given.present)
    assert (probabilities(fit(given, 3.0), given) == given.scores).all()


def test_thresholds_split_where_balanced_accuracy_is_high() -> None:
    given = cases([-1, 1], each=2000)
    rule = fit(given, 3.0)
    pooled, own = thresholds(rule, given)
    assert pooled == pytest.approx(given.present.mean(), abs=1e-3)
    for name in ("a", "b"):
        share = given.present[given.targets == name].mean()
        assert own[name] == pytest.approx(share, abs=0.12)


def test_reliability_numbers_and_picture_stand_beside_the_folder(tmp_path: Path) -> None:
    given = cases([0, 1])
    found = measured(given, np.inf, pictures=300, held_out=False, started=False)
    numbers, picture = write_reliability(found, tmp_path / "export")
    assert (numbers.name, picture.name) == ("export-reliability.json", "export-reliability.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    read = json.loads(numbers.read_text("utf-8"))
    assert read["after"]["expected_calibration_error"] < 0.05 < read["before"]["expected_calibration_error"]
    assert sum(row["cases"] for row in read["after"]["bins"]) == read["cases"] == 800
    assert (read["patients"], read["pictures"], read["offset_shrinkage"]) == (40, 300, None)
    assert "that were trained on" in read["origin"]


def test_bins_and_loss_by_hand() -> None:
    bins = reliability([0.05, 0.95, 1.0, 0.5], [False, True, False, True], bins=2)
    assert [(b.count, b.found) for b in bins] == [(1, 0.0), (3, pytest.approx(2 / 3))]
    assert expected_calibration_error(bins) == pytest.approx((0.05 + 3 * abs(2.45 / 3 - 2 / 3)) / 4)
    assert np.isnan(expected_calibration_error(reliability([], [])))
    assert log_loss([0.5, 0.25], [True, False]) == pytest.approx(-(np.log(0.5) + np.log(0.75)) / 2)


def polyps(folder: Path, patients: int = 12) -> RecordSet:
    """A picture with and one without a polyp of every patient."""
    rows = []
    for n in range(2 * patients):
        mask = np.zeros((96, 72), bool)
        mask[20:40, 20:40] = True
        there = {"regions": (region_record("polyp", mask),)} if n % 2 else {"absent": ("polyp",)}
        rows.append(record(n, **there))
    record_files.save(rows, folder / "train.parquet")
    return record_files.load(folder / "train.parquet")


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordSet:
    monkeypatch.setattr(calibrate, "MINIMUM_EACH", 4)
    return polyps(tmp_path)


def test_held_out_patients_calibrate_where_there_are_enough(training: RecordSet) -> None:
    model, processor = toy_model()
    held_out = np.arange(len(training)) >= 12
    found = calibrated(model, processor, training, held_out, {"licence": "none"}, True)
    assert found.reliability is not None
    assert (found.reliability.held_out, found.reliability.pictures, found.reliability.cases) == (True, 12, 12)
    assert "held out from this run, which the weights it started from may have seen" in found.config.facts["presence"]
    assert found.config is model.config is processor.config
    assert found.config.presence.threshold == 0.5
    assert found.config.targets == {"endoscopy": ("polyp",)}
    assert found.config.facts["licence"] == "none"


def test_without_enough_held_out_patients_training_ones_do_and_it_is_said(training: RecordSet) -> None:
    model, processor = toy_model()
    held_out = np.arange(len(training)) >= 20
    found = calibrated(model, processor, training, held_out, {}, False)
    assert found.reliability is not None
    assert (found.reliability.held_out, found.reliability.cases) == (False, 20)
    assert "were trained on" in found.config.facts["presence"]


def test_too_few_cases_leave_the_plain_score(training: RecordSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "MINIMUM_EACH", 50)
    model, processor = toy_model()
    found = calibrated(model, processor, training, np.zeros(len(training), bool), {}, False)
    assert found.reliability is None
    assert found.config.presence == calibrate.PLAIN
    assert "not calibrated" in found.config.facts["presence"]
