"""What is said at the end of a run."""

from __future__ import annotations

from napari_unibiomed.jobs import Run
from napari_unibiomed.messages import catalogue, notices
from napari_unibiomed.messages.message import Message
from unibiomed_core.report import is_abnormal
from unibiomed_core.types import Prompt
from unibiomed_core.updates import LESS_MEMORY


def closing_messages(run: Run) -> list[Message]:
    """What there is to say about a run that ended: how it went, and then what needs attention."""
    done = len(run.slices_done)
    if run.cancelled:
        return [*_notes(run), catalogue.cancelled(done, run.slices_total)]
    if run.job.kind in ("ask", "roi"):
        return [notices.answered(len(run.answers), run.seconds), *_notes(run)]
    searched = [prompt.target for prompt in run.job.request.prompts]
    unknown = () if run.report is None else run.report.settings.get("unknown_targets", ())
    missing = [n for n in searched if n and not _has_mask(run, n) and n not in {one["name"] for one in unknown}]
    abnormal = [f for f in run.findings if is_abnormal(f.target or f.phrase, run.volume.modality)]
    unsure = sum("unsure" in f.flags for f in abnormal)
    counts = len(abnormal) - unsure, unsure, len(run.findings) - len(abnormal), done
    end = notices.finished(*counts, run.seconds, report=run.job.kind == "report")
    said = [] if missing and not run.findings else [end]
    return [*said, *(catalogue.no_mask_for(name, done) for name in missing), *_notes(run)]


def _notes(run: Run) -> list[Message]:
    notes = []
    if unknown := ({} if run.report is None else run.report.settings).get("unknown_targets"):
        notes.append(catalogue.not_learnt([(str(one["name"]), list(one["nearest"])) for one in unknown]))
    if any(prediction.truncated for given in run.predictions.values() for prediction in given):
        notes.append(catalogue.answer_truncated())
    if run.report is not None and any(note.code == LESS_MEMORY for note in run.report.warnings):
        notes.append(catalogue.continued_with_less_memory())
    return notes


def _has_mask(run: Run, name: str) -> bool:
    def asked(prompt: Prompt) -> bool:
        return name in (prompt.target, prompt.question)

    return any(
        prediction.masks for given in run.predictions.values() for prediction in given if asked(prediction.prompt)
    )
