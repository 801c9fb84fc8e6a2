"""Every shipped sample, as a new user reports on it: without its modality, with the embedded model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from train.evaluation.report_checks import contradictions
from unibiomed_core import report as reports
from unibiomed_core import vocabulary
from unibiomed_core.engine.engine import Engine
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.io import read
from unibiomed_core.report.sections import outside
from unibiomed_core.samples import samples
from unibiomed_core.types import Report
from unibiomed_core.updates import Done

PICTURES = [name for name, sample in samples().items() if not sample.path.name.endswith(".nii.gz")]
VOLUMES = [name for name in samples() if name not in PICTURES]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    loaded = Engine.load("mini", device="cpu")
    yield loaded
    loaded.free()


def reported(engine: Engine, name: str) -> Report:
    volume = engine.with_modality(read(samples()[name].path, undecided=True))
    *_, last = engine.run(volume, RunRequest(describe=True))
    assert isinstance(last, Done)
    return last.report


@pytest.mark.parametrize("name", [*PICTURES, *(pytest.param(n, marks=pytest.mark.slow) for n in VOLUMES)])
def test_a_sample_is_reported_as_a_person_would(engine: Engine, name: str) -> None:
    report, sample = reported(engine, name), samples()[name]
    assert report.image["modality"] == sample.modality
    assert contradictions(report) == {}
    assert report.shown is not None
    for finding in report.findings:
        assert vocabulary.can_be_shown(finding.target, sample.modality, ()), finding.target
    singles = Counter(f.target for f in report.findings if _is_single(f.target, sample.modality))
    assert max(singles.values(), default=1) <= 2, "a pair has two rows, an organ one"
    assert len(report.findings) <= 12, "a page that is read to its end"
    first = reports.sections(report)[0]
    assert first.code == "impression"
    assert 1 <= len(first.lines) <= 5
    told = reports.narrative(report)
    for _, words in report.sentences:
        assert all(strange in told for strange in outside(words, report))


def test_a_normal_chest_film_has_no_abnormal_row(engine: Engine) -> None:
    """It listed 26 "findings"."""
    report = reported(engine, "xray-normal")
    abnormal = [f for f in report.findings if reports.is_abnormal(f.target, "xray")]
    assert [f.target for f in abnormal if "unsure" not in f.flags] == []
    assert len(report.findings) <= 6


def _is_single(target: str, modality: str) -> bool:
    entry = vocabulary.find(target, modality)
    return entry is not None and entry.counted in ("one", "pair")
