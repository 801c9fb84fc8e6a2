"""Export: the command line's bytes where nothing was edited, edits and rejections where something was."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import jsonschema
import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from napari_unibiomed.findings.export import FORMATS, edited_report, export_mask, export_report
from napari_unibiomed.findings.model import FindingsModel
from napari_unibiomed.jobs import Run
from tests.alike import alike_files
from tests.hand_volumes import cropped
from tests.napari_unibiomed.hand_runs import a_run, masks, small_volume
from unibiomed_core import report as reports
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.errors import WriteError
from unibiomed_core.io import read
from unibiomed_core.types import Volume
from unibiomed_core.updates import Done


@pytest.mark.parametrize("plane", ["axial", "sagittal"])
def test_without_edits_the_files_are_those_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plane: Any
) -> None:
    from tests.unibiomed_core.engine.toy import ct_volume, toy_engine
    from unibiomed_core.cli import main
    from unibiomed_core.engine.engine import Engine

    image = nibabel.Nifti1Image(ct_volume(3).voxels.transpose(2, 1, 0), np.diag([-1.5, 1.5, 4.0, 1.0]))
    nibabel.save(image, tmp_path / "ct.nii.gz")
    monkeypatch.setattr(Engine, "load", lambda *_, **__: toy_engine())
    words = ["report", tmp_path / "ct.nii.gz", "--targets", "liver,spleen", "--plane", plane, "--modality", "ct"]
    done = CliRunner().invoke(main.app, [str(word) for word in [*words, "--out", tmp_path / "cli"]])
    assert done.exit_code == 0, done.output

    volume = read(tmp_path / "ct.nii.gz", "ct")
    stream = toy_engine().run(volume, RunRequest.segment("liver", "spleen", plane=plane))
    report = next(update.report for update in stream if isinstance(update, Done))
    assert report.findings
    files = export_report(a_run(volume, report=report, window=None, plane=plane), FindingsModel(), tmp_path / "gui")
    assert {file.name for file in files} == {file.name for file in (tmp_path / "cli").iterdir()}
    alike_files(tmp_path / "gui", tmp_path / "cli", {"findings.nii.gz", "findings.csv", "labels.json", "report.json"})
    affines = [nibabel.load(tmp_path / side / "findings.nii.gz").affine for side in ("gui", "cli")]
    assert np.array_equal(*affines)


def edited() -> tuple[Run, FindingsModel]:
    """The tumour rejected, the liver renamed and painted on slice 5 too."""
    run, model = a_run(), FindingsModel()
    model.set_run(run)
    model.reject(2)
    model.rename(1, "hepar")
    larger = masks(run.job.volume)[0]
    larger[5, 10:30, 2:20] = True
    model.remeasure(1, cropped(larger))
    return run, model


def test_an_unedited_run_exports_the_engines_own_report() -> None:
    run, model = a_run(), FindingsModel()
    assert edited_report(run, model.rows_of(run)) is run.report
    model.set_run(run)
    model.hide(1)
    model.reject(2)
    model.undo()
    assert edited_report(run, model.rows_of(run)) is run.report


def test_edits_reach_every_file_and_are_told(tmp_path: Path) -> None:
    run, model = edited()
    export_report(run, model, tmp_path)
    data = json.loads((tmp_path / "report.json").read_text("utf-8"))
    jsonschema.Draft202012Validator(reports.schema()).validate(data)
    (finding,) = data["findings"]
    assert (finding["number"], finding["target"], finding["phrase"]) == (1, "hepar", "liver in abdomen CT")
    assert finding["slice_indices"] == [3, 4, 5, 6, 7]
    assert data["edits"] == [
        {"code": "rejected", "finding_numbers": [2]},
        {"code": "renamed", "finding_numbers": [1]},
        {"code": "redrawn", "finding_numbers": [1]},
    ]
    assert [note["text"] for note in data["warnings"]] == [note.text for note in run.report.warnings], (
        "what the reader did is no warning (ux 16)"
    )
    told = [line for line in data["narrative"].splitlines() if line.startswith("Edited by the reader: ")]
    assert [line.partition(": ")[2] for line in told] == [
        "Finding 2 was rejected and left out.",
        "Finding 1 was renamed.",
        "Finding 1 was painted on and measured again.",
    ]
    assert "Hepar: " in data["narrative"]
    assert "tumour" not in data["narrative"].split("The model's own words")[0]
    labels = np.asarray(nibabel.load(tmp_path / "findings.nii.gz").dataobj)
    assert set(np.unique(labels)) == {0, 1}
    assert (labels > 0).sum() == finding["measurements"]["voxel_count"]
    html = (tmp_path / "report.html").read_text("utf-8")
    assert "hepar" in html
    assert "rejected and left out" in html.split('id="limits"')[1].split("</section>")[0]
    assert reports.from_json(data).edits == edited_report(run, model.rows_of(run)).edits


def test_numbers_in_the_csv_are_those_of_the_panel(tmp_path: Path) -> None:
    run, model = edited()
    export_report(run, model, tmp_path, ["csv"])
    assert [file.name for file in tmp_path.iterdir()] == ["findings.csv"]
    with (tmp_path / "findings.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    shown = model.row(1)
    assert float(row["volume_ml"]) == shown.volume_ml
    assert float(row["longest_axial_diameter_mm"]) == shown.longest_mm
    assert float(row["intensity_mean"]) == shown.mean
    assert f"{row['slice_first']}–{row['slice_last']}" == shown.slices


def test_masks_lie_on_the_grid_of_the_file(tmp_path: Path) -> None:
    volume = small_volume(reverse=True)
    run, model = a_run(volume), FindingsModel()
    export_report(run, model, tmp_path, ["masks"])
    saved = nibabel.load(tmp_path / "findings.nii.gz")
    assert np.allclose(saved.affine, volume.stored.affine)
    assert saved.shape == volume.stored.shape
    one = export_mask(run, model.rows_of(run)[1], tmp_path / "one.nii.gz")
    assert np.array_equal(volume.stored.to_canonical(np.asarray(nibabel.load(one).dataobj)) > 0, masks(volume)[1])


def test_nothing_is_overwritten_without_being_asked(tmp_path: Path) -> None:
    run, model = a_run(), FindingsModel()
    export_report(run, model, tmp_path, ["csv"])
    before = (tmp_path / "findings.csv").read_bytes()
    model.set_run(run)
    model.reject(1)
    with pytest.raises(WriteError, match="exist already"):
        export_report(run, model, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["findings.csv"]
    assert (tmp_path / "findings.csv").read_bytes() == before
    export_report(run, model, tmp_path, overwrite=True)
    assert (tmp_path / "findings.csv").read_bytes() != before
    with pytest.raises(WriteError, match="exist already"):
        export_mask(run, model.row(1), tmp_path / "findings.nii.gz")


@pytest.mark.parametrize("formats", [["docx"], [], ["pdf"]])
def test_unknown_formats_are_refused(tmp_path: Path, formats: list[str]) -> None:
    with pytest.raises(WriteError, match="Unknown output format"):
        export_report(a_run(), FindingsModel(), tmp_path / "out", formats)
    assert not (tmp_path / "out").exists()


def test_what_has_no_report_or_mask_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="No report"):
        export_report(a_run(report=None), FindingsModel(), tmp_path)
    run, model = a_run(), FindingsModel()
    with pytest.raises(WriteError, match="Unknown output format"):
        export_mask(run, model.rows_of(run)[0], tmp_path / "mask.png")


def test_a_picture_is_exported_as_png(tmp_path: Path) -> None:
    from tests.unibiomed_core.engine.toy import rgb_picture, toy_engine

    picture: Volume = rgb_picture()
    report = next(u.report for u in toy_engine().run(picture, RunRequest.segment("tumour")) if isinstance(u, Done))
    files = export_report(a_run(picture, report=report, window=None), FindingsModel(), tmp_path)
    assert {file.name for file in files} == {n for names in FORMATS.values() for n in names} - {"findings.nii.gz"}
