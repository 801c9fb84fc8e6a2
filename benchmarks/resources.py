"""Rows about memory, reading, start-up, and one whole report."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

from benchmarks.bars import Row
from benchmarks.subject import Subject, medians
from unibiomed_core import read
from unibiomed_core.engine.engine import Engine
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.samples import samples
from unibiomed_core.types import StoredOrder, Volume

FEW, MANY = 30, 300
REPORT_SHAPE = (100, 256, 256)
ROOT = Path(__file__).resolve().parents[1]


def anatomy(shape: tuple[int, int, int]) -> Volume:
    """The shipped CT resampled to another grid."""
    given = read(samples()["ct"].path)
    factors = [new / old for new, old in zip(shape, given.voxels.shape, strict=True)]
    voxels = ndimage.zoom(given.voxels, factors, order=1)
    affine = given.affine @ np.diag([*(1 / np.array(factors)), 1.0])
    order = StoredOrder((2, 1, 0), (True, True, True), voxels.shape[::-1], np.eye(4))
    return Volume(voxels, affine, "ct", "HU", "mm", True, order, name="anatomy")


def memory() -> list[Row]:
    """R8: the largest resident memory of a process that examines 300 slices, against 30; the volume itself counts."""
    peaks = []
    for slices in (FEW, MANY):
        code = f"from benchmarks.resources import peak_mib; print(peak_mib({slices}))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
        peaks.append(float(done.stdout.split()[-1]))
    parts = {f"MiB, {FEW} slices": peaks[0], f"MiB, {MANY} slices": peaks[1]}
    return [Row("R8", "peak memory, 300 slices / 30", "CPU", peaks[1] / peaks[0], 1.3, parts=parts)]


def peak_mib(slices: int) -> float:
    """Examine so many slices; the process's peak so far."""
    import resource

    engine = Engine.load("mini", device="cpu")
    for _ in engine.run(anatomy((slices, 256, 256)), RunRequest.segment("liver", describe=False)):
        pass
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def disk(subject: Subject) -> list[Row]:
    """R9: a run over a file against a run over the same data in memory."""
    path = samples()["ct"].path
    given = read(path)

    def examine(volume: Volume) -> None:
        subject.engine.free()
        for _ in subject.engine.run(volume, RunRequest.segment("liver", describe=False)):
            pass

    held, stored = medians(lambda: examine(given), lambda: examine(read(path)))
    return [Row("R9", "time with disk / with data in memory", subject.where, stored / held, 1.15)]


def checks(subject: Subject) -> list[Row]:
    """R15: the targets of a report searched in the shipped CT with every check, against the search alone.

    The first look, the open question on every slice and the boxes are checks; descriptions of boxes are not.
    """
    volume = read(samples()["ct"].path)
    names = subject.engine.info.default_targets.get("ct") or ("liver", "spleen", "aorta", "lung tumour")

    def examine(check: bool) -> None:
        subject.engine.free()
        for _ in subject.engine.run(volume, RunRequest.segment(*names, describe=False, check=check)):
            pass

    alone, checked = medians(lambda: examine(False), lambda: examine(True))
    parts = {"seconds, search alone": alone}
    return [Row("R15", "time: report with checks / search alone", subject.where, checked / alone, 1.25, parts=parts)]


def imports() -> list[Row]:
    """R12: ``import unibiomed_core`` against ``import torch``, each in a fresh interpreter."""

    def load(name: str) -> None:
        subprocess.run([sys.executable, "-c", f"import {name}"], check=True, cwd=ROOT)

    base, ours, torch_time = medians(lambda: load("sys"), lambda: load("unibiomed_core"), lambda: load("torch"))
    return [Row("R12", "import unibiomed_core / import torch", "CPU", (ours - base) / (torch_time - base), 0.1)]


def whole_report() -> list[Row]:
    """R14: the command line's report of a 100-slice CT of 256 x 256, all default targets, from start to files."""
    import nibabel

    volume = anatomy(REPORT_SHAPE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ct.nii.gz"
        xyz = np.ascontiguousarray(volume.voxels.transpose(2, 1, 0))
        to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
        nibabel.save(nibabel.Nifti1Image(xyz, to_ras @ volume.affine[:, [2, 1, 0, 3]]), path)
        began = time.perf_counter()
        command = [sys.executable, "-m", "unibiomed_core.cli.main", "report", str(path), "--out", f"{folder}/out"]
        subprocess.run([*command, "--offline", "--device", "cpu"], check=True, capture_output=True, cwd=ROOT)
        seconds = time.perf_counter() - began
        report = json.loads(next(Path(folder, "out").rglob("report.json")).read_text("utf-8"))
    examined = len(report["slices"]["done_indices"])
    parts = {"slices examined": examined}
    return [Row("R14", "seconds: report of 100 slices of 256 x 256", "CPU", seconds, 60.0, parts=parts)]
