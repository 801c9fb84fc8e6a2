"""The files of a report: on the input's grid, self-contained, whole or not at all."""

from __future__ import annotations

import csv
import errno
import json
import os
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from tests.hand_volumes import AXIS_CODES, canonical_affine, cropped, picture_of, tilted, volume_of
from unibiomed_core import report as reports
from unibiomed_core.engine.volume.linking import LinkedMask, SliceMask, findings, link
from unibiomed_core.errors import WriteError
from unibiomed_core.io.export import report_names, write, write_report
from unibiomed_core.io.export.html import render
from unibiomed_core.io.export.json_file import write_json
from unibiomed_core.io.export.png import write_labels, write_mask
from unibiomed_core.modalities import CT_WINDOWS, choose_window
from unibiomed_core.types import NOTICE, Absence, Report, Volume

WINDOW = CT_WINDOWS["soft tissue"]


def report_of(volume: Volume, phrase: str = "liver in abdomen CT", count: int = 1) -> Report:
    """A report with ``count`` box findings, the first the largest."""
    linked = []
    for i in range(count):
        mask = np.zeros(volume.shape, bool)
        deep = slice(0, 1) if volume.is_2d else slice(2, 6)
        mask[deep, 4 + i : 14, 5 : 20 - i] = True
        slices = tuple(range(deep.start, deep.stop))
        linked.append(LinkedMask("liver", phrase, 0.9, cropped(mask), "axial", slices, ()))
    return reports.build(
        volume=volume,
        window=WINDOW,
        plane="axial",
        findings=findings(linked, volume),
        absences=[Absence("spleen", 0.02, 8), Absence("aorta", 0.1, 8)],
        model={"name": "mini", "licence": "Apache-2.0", "card": {"data": "28 sets"}},
        settings={"every": 1},
        slices_done=range(volume.shape[0]),
        slices_skipped=[],
        seconds=3.0,
        sentences=[(0, "It is <b>a liver</b>.")],
    )


@pytest.fixture
def volume() -> Volume:
    voxels = np.random.default_rng(0).normal(40, 60, (9, 24, 40)).astype(np.int16)
    return volume_of(voxels, canonical_affine((3.0, 1.0, 1.0)))


class Page(HTMLParser):
    """What the tests want to know of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: dict[str, int] = {}
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self._table = ""
        self._body = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.sources += [str(given[key]) for key in ("src", "href", "srcset", "data") if key in given]
        if tag == "table":
            self._table = str(given.get("id", ""))
        self._body = tag == "tbody" or (self._body and tag != "table")
        if tag == "tr" and self._body:
            self.rows[self._table] = self.rows.get(self._table, 0) + 1

    def handle_data(self, data: str) -> None:
        self.words += data


def test_page_is_self_contained_and_complete(volume: Volume) -> None:
    text = render(report_of(volume, count=3), volume, WINDOW)
    page = Page(text)
    assert page.rows["rows-structures"] == 3
    assert page.words.count(NOTICE) == 2, "top and bottom"
    assert page.sources
    assert all(source.startswith("data:image/") for source in page.sources)
    assert "http" not in text.replace("http-equiv", "")
    assert "script" not in page.tags
    assert "link" not in page.tags
    for words in ("Key slices", "What the model saw", "soft tissue: \u2212160 to 240 HU", "Apache-2.0", "28 sets"):
        assert words in page.words
    assert text.startswith("<!DOCTYPE html>")


def test_what_the_model_saw_is_exact(volume: Volume) -> None:
    import base64
    import io

    from unibiomed_core.modalities import to_rgb

    text = render(report_of(volume), volume, WINDOW)
    source = next(s for s in Page(text).sources if s.startswith("data:image/png"))
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))))
    assert np.array_equal(seen, to_rgb(volume.slice(2).pixels, WINDOW))


def test_page_escapes_words_from_outside(volume: Volume) -> None:
    text = render(report_of(volume, phrase="<script>alert(1)</script>"), volume, WINDOW)
    assert "script" not in Page(text).tags
    assert "<b>a liver</b>" not in text


def test_page_of_nothing_found_is_no_silence(volume: Volume) -> None:
    page = Page(render(report_of(volume, count=0), volume, WINDOW))
    assert not [name for name in page.rows if name.startswith("rows-")]
    assert "None. This is what the model produced" in page.words
    assert "it does not say that the image is normal" in page.words


def test_many_findings_keep_the_page_small(volume: Volume) -> None:
    report = report_of(volume)
    many = report.renumbered(report.findings * 26)
    text = render(many, volume, WINDOW)
    assert Page(text).rows["rows-structures"] == 26
    assert "2 more stand in the table" in " ".join(Page(text).words.split())


def test_pictures_are_enlarged_in_true_proportions() -> None:
    import base64
    import io

    voxels = np.zeros((10, 20, 24), np.int16)
    volume = volume_of(voxels, canonical_affine((2.0, 1.0, 0.5)))
    source = next(s for s in Page(render(report_of(volume), volume, WINDOW)).sources if "jpeg" in s)
    width, height = Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).size
    assert max(width, height) == 256
    assert width / height == pytest.approx(24 * 0.5 / 20, rel=0.02)


@pytest.mark.parametrize("angles", [(0.0, 0.0, 0.0), (8.0, -11.0, 15.0)], ids=["straight", "tilted"])
@pytest.mark.parametrize("codes", AXIS_CODES)
def test_labels_lie_on_the_grid_of_the_file(codes: str, angles: tuple[float, float, float], tmp_path: Path) -> None:
    shape, steps = (9, 11, 13), (1.5, 2.0, 2.5)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, code in enumerate(codes):
        row = "RAS".find(code) if code in "RAS" else "LPI".find(code)
        affine[row, column] = steps[column] if code in "RAS" else -steps[column]
    affine = tilted(affine, angles)
    affine[:3, 3] = (-31.25, 7.5, 100)
    affine = affine.astype(np.float32).astype(np.float64)  # what a NIfTI file can hold
    stored = np.zeros(shape, np.int16)
    stored[2:5, 3:9, 4:7] = 100
    volume = volume_of(stored, affine)
    mask = volume.voxels > 0
    masks = [SliceMask(z, "lesion", "lesion", 0.9, cropped(mask[z])) for z in np.flatnonzero(mask.any(axis=(1, 2)))]
    things = findings(link(masks, volume)[0], volume)
    report = reports.build(
        volume=volume,
        window=None,
        plane="axial",
        findings=things,
        absences=[],
        model={},
        settings={},
        slices_done=range(volume.shape[0]),
        slices_skipped=[],
        seconds=1.0,
    )
    path = write(report, volume, None, tmp_path / "findings.nii.gz")
    image = nibabel.load(path)
    assert np.array_equal(image.affine, affine)
    assert np.array_equal(image.get_sform(), affine)
    assert np.allclose(image.get_qform(), affine, atol=1e-4)
    labels = np.asarray(image.dataobj)
    assert labels.shape == shape
    assert labels.dtype == np.uint16
    assert np.array_equal(labels > 0, stored > 0)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_sheared_grids_keep_their_matrix(tmp_path: Path) -> None:
    affine = canonical_affine((2.0, 1.0, 1.0))
    affine[1, 0] = 0.5  # gantry tilt
    volume = volume_of(np.zeros((9, 24, 40), np.int16), affine)
    image = nibabel.load(write(report_of(volume), volume, WINDOW, tmp_path / "a.nii"))
    assert np.array_equal(image.affine, affine)


def test_all_files_agree(volume: Volume, tmp_path: Path) -> None:
    report = report_of(volume, count=2)
    paths = write_report(report, volume, WINDOW, tmp_path / "new" / "out")
    assert [p.name for p in paths] == ["report.json", "report.html", "findings.nii.gz", "labels.json", "findings.csv"]
    assert sorted(os.listdir(tmp_path / "new" / "out")) == sorted(p.name for p in paths)
    back = reports.from_json(json.loads(paths[0].read_text("utf-8")))
    assert back.narrative == report.narrative
    table = json.loads(paths[3].read_text("utf-8"))["labels"]
    labels = np.asarray(nibabel.load(paths[2]).dataobj)
    assert set(np.unique(labels)) - {0} == {int(number) for number in table}
    assert table["1"]["voxel_count"] == report.findings[0].measurements.voxel_count
    assert table["1"]["target"] == "liver"
    assert [table[number]["colour"] for number in ("1", "2")] == ["#0072B2", "#D55E00"]
    with paths[4].open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["volume_ml"]) for row in rows] == [f.measurements.volume_ml for f in report.findings]
    assert (rows[0]["slice_first"], rows[0]["slice_last"], rows[0]["area_mm2"]) == ("2", "5", "150.0")


def test_a_picture_gets_a_label_picture(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (30, 44, 3), np.uint8)
    volume = picture_of(pixels)
    paths = write_report(report_of(volume), volume, choose_window(volume), tmp_path)
    assert "findings.png" in {p.name for p in paths}
    assert "findings.nii.gz" not in {p.name for p in paths}
    labels = np.asarray(Image.open(tmp_path / "findings.png"))
    assert labels.shape == (30, 44)
    assert labels.dtype == np.uint8
    assert (labels == 1).sum() == 150
    with (tmp_path / "findings.csv").open(newline="", encoding="utf-8") as file:
        assert next(csv.DictReader(file))["volume_ml"] == ""


def test_png_values(tmp_path: Path) -> None:
    write_mask(np.eye(20, 30, dtype=bool), tmp_path / "mask.png")
    mask = np.asarray(Image.open(tmp_path / "mask.png"))
    assert mask.shape == (20, 30)
    assert set(np.unique(mask)) == {0, 255}
    many = np.arange(600, dtype=np.uint16).reshape(20, 30)
    write_labels(many, tmp_path / "labels.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "labels.png")), many)


def test_nothing_is_overwritten_silently(volume: Volume, tmp_path: Path) -> None:
    report = report_of(volume)
    (tmp_path / "report.json").write_text("mine", "utf-8")
    (tmp_path / "notes.txt").write_text("mine too", "utf-8")
    with pytest.raises(WriteError, match=r"Files exist already.*report\.json") as caught:
        write_report(report, volume, WINDOW, tmp_path)
    assert "notes.txt" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["notes.txt", "report.json"]
    write_report(report, volume, WINDOW, tmp_path, overwrite=True)
    assert json.loads((tmp_path / "report.json").read_text("utf-8"))["schema"] == "unibiomed.report"
    assert (tmp_path / "notes.txt").read_text("utf-8") == "mine too"
    assert len(os.listdir(tmp_path)) == 1 + len(report_names(volume))


@pytest.mark.parametrize(
    ("code", "title"),
    [
        (errno.ENOSPC, "Disk full"),
        (errno.EROFS, "Folder cannot be written"),
        (errno.EIO, "Result cannot be written"),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_disk_leaves_what_was_there(
    volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, title: str, call: str
) -> None:
    report = report_of(volume)
    old = tmp_path / "old"
    write_report(report, volume, WINDOW, old)
    before = {p.name: p.read_bytes() for p in old.iterdir()}
    calls = 0
    real = getattr(os, call)

    def failing(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise OSError(code, os.strerror(code))
        return real(*given)

    monkeypatch.setattr(os, call, failing)
    if call == "fsync":
        calls = 2  # fewer calls a run than renames
    with pytest.raises(WriteError) as caught:
        write_report(report, volume, WINDOW, old, overwrite=True)
    assert caught.value.title == title
    assert {p.name: p.read_bytes() for p in old.iterdir()} == before
    calls = 2
    with pytest.raises(WriteError):
        write_report(report, volume, WINDOW, tmp_path / "new" / "deep")
    assert not (tmp_path / "new").exists()


def test_a_full_disk_while_writing_leaves_nothing(
    volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any, **named: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(nibabel, "save", full)
    with pytest.raises(WriteError, match="Disk full"):
        write_report(report_of(volume), volume, WINDOW, tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_folders_that_cannot_be_written(volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = report_of(volume)
    (tmp_path / "file").write_text("mine", "utf-8")
    for out in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(WriteError, match="Output is not a folder"):
            write_report(report, volume, WINDOW, out)
    assert (tmp_path / "file").read_text("utf-8") == "mine"

    def refused(*given: Any, **named: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("tempfile.mkdtemp", refused)
    with pytest.raises(WriteError, match="Folder cannot be written"):
        write_report(report, volume, WINDOW, tmp_path / "locked")
    assert os.listdir(tmp_path) == ["file"]


def test_one_file_at_a_time(volume: Volume, tmp_path: Path) -> None:
    report = report_of(volume)
    assert write(report, volume, WINDOW, tmp_path / "a.html").read_text("utf-8").startswith("<!DOCTYPE")
    with pytest.raises(WriteError, match="Files exist already"):
        write(report, volume, WINDOW, tmp_path / "a.html")
    for name in ("a.docx", "a.png"):
        with pytest.raises(WriteError, match=r"Unknown output format.*\.nii\.gz"):
            write(report, volume, WINDOW, tmp_path / name)
    write_json({"a": 1.5}, tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text("utf-8")) == {"a": 1.5}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json({"a": float("inf")}, tmp_path / "c.json")
    assert sorted(os.listdir(tmp_path)) == ["a.html", "b.json"]
