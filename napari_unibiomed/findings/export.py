"""Writing the report of a run: the core's own writers, with the user's edits applied and rejected findings left out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from napari_unibiomed.findings.model import FindingsModel
from napari_unibiomed.findings.rows import FindingRow, edited_findings, same_target
from unibiomed_core.errors import WriteError
from unibiomed_core.modalities import Window, choose_window
from unibiomed_core.report import narrative
from unibiomed_core.types import Finding, ReaderEdit, Report, Volume

if TYPE_CHECKING:
    from napari_unibiomed.jobs import Run

FORMATS: Mapping[str, tuple[str, ...]] = {
    "json": ("report.json",),
    "html": ("report.html",),
    "csv": ("findings.csv",),
    "masks": ("findings.nii.gz", "findings.png", "labels.json"),
}
"""What can be asked for -> files of the command line's report. A volume gets the NIfTI, a picture the PNG."""

PDF_FILE = "report.pdf"

Writer = Callable[[Report, Volume, "Window | None", Path], None]


def window_of(run: Run) -> Window:
    """The intensity window that the model was given."""
    return run.job.request.window or choose_window(run.job.volume)


def edited_report(run: Run, rows: Sequence[FindingRow]) -> Report:
    """The report of a run as the user left it; the very report of the engine where nothing was edited.

    Findings keep their numbers, so that they stay those of the labels on the screen. What was rejected, renamed or
    painted is told as the reader's edits. A target that a finding was renamed to is not told as absent any more, and no
    finding is a part of one that was rejected or renamed.

    Args:
        rows: The rows of this run.

    Raises:
        WriteError: The run has no report yet, or is one that has none.
    """
    if run.report is None:
        raise WriteError(
            "No report to write", "this run has no finished report", "a report or a segmentation", "Run a report first."
        )
    by_number = {row.number: row for row in rows if row.finding is not None}
    now_told = {finding.number: finding for finding in edited_findings(rows)}
    kept: list[Finding] = []
    edits: dict[Literal["rejected", "renamed", "redrawn"], list[int]] = {"rejected": [], "renamed": [], "redrawn": []}

    for finding in run.report.findings:
        row = by_number[finding.number]
        if row.rejected:
            edits["rejected"].append(finding.number)
            continue
        if row.finding is not finding:
            edits["redrawn"].append(finding.number)
        if row.phrase != (finding.target or finding.phrase):
            edits["renamed"].append(finding.number)
        kept.append(now_told[finding.number])

    told = tuple(ReaderEdit(code, tuple(numbers)) for code, numbers in edits.items() if numbers)
    if not told:
        return run.report
    modality = run.job.volume.modality
    found = [finding.target or finding.phrase for finding in kept]
    absences = tuple(a for a in run.report.absences if not any(same_target(a.target, name, modality) for name in found))
    changed = replace(run.report, findings=tuple(kept), absences=absences, edits=told)
    return replace(changed, narrative=narrative(changed))


def file_names(run: Run, formats: Collection[str]) -> tuple[str, ...]:
    """The files that an export writes, in the order of the command line, a PDF last.

    Raises:
        WriteError: A format is unknown, or none is named.
    """
    from unibiomed_core.io.export import report_names

    unknown = sorted(set(formats) - {*FORMATS, "pdf"})
    if unknown or not formats:
        found = f"'{unknown[0]}'" if unknown else "no format"
        raise WriteError("Unknown output format", found, f"some of {', '.join((*FORMATS, 'pdf'))}")
    wanted = {name for each in formats for name in FORMATS.get(each, (PDF_FILE,))}
    return tuple(name for name in (*report_names(run.job.volume), PDF_FILE) if name in wanted)


def export_report(
    run: Run,
    model: FindingsModel,
    folder: Path | str,
    formats: Collection[str] = tuple(FORMATS),
    *,
    overwrite: bool = False,
    write_pdf: Writer | None = None,
) -> list[Path]:
    """Write a run's report into a folder, all files or none.

    Without edits the files are those that the command line writes for the same run.

    Args:
        formats: Keys of ``FORMATS``, and "pdf" where ``write_pdf`` is given.
        overwrite: Replace files of the same names; others in the folder are never touched.
        write_pdf: Draws the PDF, which needs Qt.

    Returns:
        The files written.

    Raises:
        WriteError: There is no report, a format is unknown, a file exists, or the folder cannot be written.
    """
    from unibiomed_core.io.export import REPORT_FILES, staged

    report, names = edited_report(run, model.rows_of(run)), file_names(run, formats)
    writers = dict(REPORT_FILES)
    if write_pdf is not None:
        writers[PDF_FILE] = write_pdf
    elif PDF_FILE in names:
        raise WriteError("Unknown output format", "a PDF without a window", f"some of {', '.join(FORMATS)}")
    with staged(folder, names, overwrite=overwrite) as aside:
        for name in names:
            writers[name](report, run.job.volume, window_of(run), aside / name)
    return [Path(folder) / name for name in names]


def export_mask(run: Run, row: FindingRow, path: Path | str, *, overwrite: bool = False) -> Path:
    """Write the mask of one finding on the grid of its file: NIfTI for a volume, PNG for a picture.

    Raises:
        WriteError: The row has no mask, the suffix does not fit, or the file exists or cannot be written.
    """
    from unibiomed_core.io.export import staged
    from unibiomed_core.io.export.nifti import write_labels
    from unibiomed_core.io.export.png import write_mask

    path, volume = Path(path), run.job.volume
    suffixes = (".png",) if volume.is_2d else (".nii.gz", ".nii")
    if row.finding is None:
        raise WriteError("No mask to write", f"row {row.number} has no region", "a finding with a region")
    if not path.name.lower().endswith(suffixes):
        raise WriteError("Unknown output format", f"'{path.name}'", " or ".join(suffixes), "Choose another file name.")
    with staged(path.parent, [path.name], overwrite=overwrite) as aside:
        whole = row.finding.mask.full()
        if volume.is_2d:
            write_mask(whole[0], aside / path.name)
        else:
            write_labels(whole, volume, aside / path.name)
    return path
