"""What goes wrong, in words: a title that the troubleshooting list has as a heading, what is the case, what to do."""

from __future__ import annotations

import traceback
from collections.abc import Sequence

from napari_unibiomed.messages.message import Link, Message

SAMPLES = "File \u25b8 Open Sample \u25b8 UniBiomed"
"""napari's menu of our samples, as it is written there."""


def progress_text(done: int, total: int, seconds_gone: float, seconds_left: float | None) -> str:
    """``36 of 120 slices · 1:10 gone · about 2:40 left``: how many are done, which is no slice number."""
    left = "" if seconds_left is None else f" \u00b7 about {clock(seconds_left)} left"
    return f"{done} of {total} slices \u00b7 {clock(seconds_gone)} gone{left}"


def download_text(done_bytes: int, total_bytes: int, seconds_gone: float) -> str:
    """``412 of 4,012 MB · 8.3 MB/s``."""
    speed = f" \u00b7 {done_bytes / 1e6 / seconds_gone:.1f} MB/s" if seconds_gone > 0.5 else ""
    return f"{done_bytes / 1e6:,.0f} of {total_bytes / 1e6:,.0f} MB{speed}"


def size_text(count: int) -> str:
    """``3.4 MB`` of so many bytes."""
    return f"{count / 1e6:,.1f} MB" if count >= 50_000 else f"{max(1, round(count / 1e3))} kB"


def clock(seconds: float) -> str:
    """``m:ss``, from an hour on ``h:mm:ss``."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def running_on_cpu() -> Message:
    """The installed torch cannot use a GPU. How long a slice takes is told once it was measured."""
    return Message(
        "warning",
        "Running on CPU",
        "The installed PyTorch has no GPU support.",
        "Continue, or install the PyTorch build for your GPU and start napari again.",
    )


def not_enough_gpu_memory(needed_gb: float, free_gb: float) -> Message:
    """Model and one slice do not fit into the GPU."""
    return Message(
        "error",
        "Not enough GPU memory",
        f"Needed about {_gb(needed_gb)} GB, {_gb(free_gb)} GB free.",
        "Try precision bf16, close other programs, or use CPU.",
    )


def not_enough_memory(needed_gb: float, free_gb: float) -> Message:
    """Model and one slice do not fit into the computer's memory."""
    return Message(
        "error",
        "Not enough memory",
        f"Needed about {_gb(needed_gb)} GB, {_gb(free_gb)} GB free.",
        "Close other programs or take a smaller model.",
    )


def continued_with_less_memory(slices: str = "") -> Message:
    """Memory ran out during a run, and the engine went on with fewer slices at once.

    Args:
        slices: Which slices, for people; empty where it is not known.
    """
    which = f"Slices {slices}" if slices else "Some slices"
    return Message(
        "warning", "Continued with less memory", f"{which} ran in smaller batches; results can differ slightly."
    )


def weights_not_found(offline: bool = True) -> Message:
    """There are no model files where they were looked for."""
    if offline:
        meaning, action = "Offline mode is on and the folder has no model files.", " or switch offline mode off."
    else:
        meaning, action = "The folder has no model files.", " or press Download."
    links = (Link.CHOOSE_FOLDER,) if offline else (Link.CHOOSE_FOLDER, Link.DOWNLOAD)
    return Message("error", "Weights not found", meaning, f"{Link.CHOOSE_FOLDER.value}{action}", links=links)


def weights_do_not_fit(what: str) -> Message:
    """Files are missing, damaged or of another model.

    Args:
        what: What is wrong, with names: "Missing 3 files: a, b, c".
    """
    return Message(
        "error",
        "These weights do not fit this model",
        _sentence(what),
        "Download again or choose another folder.",
        links=(Link.DOWNLOAD, Link.CHOOSE_ANOTHER_FOLDER),
    )


def download_stopped(percent: int | None, why: str = "The connection closed.") -> Message:
    """A download broke off; files that arrived whole are kept."""
    where = "before it began" if percent is None else f"at {percent} %"
    return Message(
        "error",
        f"Download stopped {where}",
        why,
        "Press Download to continue; files that arrived whole are kept.",
        links=(Link.DOWNLOAD,),
    )


def offline_mode_on() -> Message:
    """A download was asked for while offline mode is on; no connection was opened."""
    return Message(
        "warning",
        "Offline mode is on",
        "Nothing is downloaded while it is on, and no connection was opened.",
        "Switch offline mode off in the preferences, or choose a folder.",
    )


def orientation_unknown() -> Message:
    """The file does not tell which way round the patient lies."""
    return Message(
        "warning",
        "Orientation unknown",
        'The file has no direction matrix. Sides will be reported as "unknown".',
        "Continue, or open a file that has one.",
    )


def tilted_acquisition(degrees: float) -> Message:
    """The slices are not parallel to the patient's axes."""
    return Message(
        "info",
        f"Tilted acquisition ({degrees:.0f}\u00b0)",
        "Shown on its own grid; measurements use true millimetres; saved masks keep the tilt.",
    )


def uneven_spacing(gap_mm: float, first: int, second: int) -> Message:
    """Slices lie at uneven distances; slice numbers are the slider's."""
    return Message(
        "warning",
        "Uneven slice spacing",
        f"Gap of {gap_mm:g} mm between slices {first} and {second}.",
        "Volumes are approximate.",
    )


def choose_one_volume(dimensions: int) -> Message:
    """A layer with time points or channels."""
    return Message(
        "error",
        "Choose one volume",
        f"This layer has {dimensions} dimensions; pick a time point or channel.",
    )


def not_hounsfield(low: float, high: float) -> Message:
    """A CT whose values cannot be HU."""
    return Message(
        "warning",
        "Values do not look like Hounsfield units",
        f"Range {low:g}\u2013{high:g}.",
        Link.USE_PERCENTILES.value,
        links=(Link.USE_PERCENTILES,),
    )


def no_mask_for(phrase: str, slices: int) -> Message:
    """A phrase was looked for and the answers had no region."""
    tried = "the slice tried" if slices == 1 else f"the {slices} slices tried"
    return Message(
        "warning",
        f"No mask for \u201c{phrase}\u201d",
        f"The model answered without a region on {tried}.",
        "Its text is in the panel.",
    )


def not_learnt(unknown: Sequence[tuple[str, Sequence[str]]]) -> Message:
    """Some of several phrases could not be looked for; the others were.

    Args:
        unknown: (phrase, what looks like it among the model's targets).
    """
    named = [f"\u201c{name}\u201d" + (f" (nearest: {', '.join(near)})" if near else "") for name, near in unknown]
    return Message(
        "warning",
        "Not known to the model",
        f"{', '.join(named)}.",
        "The other phrases were looked for. The phrase field offers all that the model knows.",
    )


def answer_truncated() -> Message:
    """The length limit cut an answer."""
    return Message("warning", "Answer truncated", "The length limit was reached; the last sentence is dropped.")


def box_too_small(width_px: int, height_px: int, smallest_px: int = 8) -> Message:
    """A drawn box is smaller than the model takes."""
    return Message(
        "error",
        "Box too small",
        f"Draw at least {smallest_px} \u00d7 {smallest_px} pixels; the current box is {width_px} \u00d7 {height_px}.",
    )


def image_closed() -> Message:
    """The image layer was removed while a job ran on it."""
    return Message(
        "warning", "The image was closed", "Finished slices are kept in the panel; masks can still be saved."
    )


def cancelled(done: int, total: int) -> Message:
    """The user stopped a run."""
    kept = "1 slice is kept." if done == 1 else f"{done} slices are kept."
    return Message(
        "warning",
        f"Cancelled after {done} of {total} slices",
        kept,
        "Resume \u00b7 Discard.",
        links=(Link.RESUME, Link.DISCARD),
    )


def cannot_save_position() -> Message:
    """A labels layer without the geometry of a file."""
    return Message(
        "error",
        "Cannot save with correct position",
        "This layer has no geometry from its file.",
        Link.SAVE_PLAIN.value,
        links=(Link.SAVE_PLAIN,),
    )


def something_went_wrong(exception: BaseException) -> Message:
    """A fault of ours."""
    return Message(
        "error",
        "Something went wrong",
        first_sentence(exception),
        "Copy details.",
        details="".join(traceback.format_exception(exception)),
        links=(Link.COPY_DETAILS,),
    )


def kind_unknown(likely: Sequence[str] = (), *, model_can_tell: bool = False) -> Message:
    """Nothing tells how an image was taken.

    Args:
        likely: Labels of the kinds that the model holds for likely, where it was asked and is undecided.
        model_can_tell: It can be asked.
    """
    meaning, action = "The file does not tell how the image was taken.", "Choose it under Image."
    if likely:
        meaning = f"The model is undecided; most likely, in this order: {', '.join(likely)}."
    elif model_can_tell:
        action = f"{Link.LET_MODEL_TELL.value}, or choose it under Image."
    links = (Link.LET_MODEL_TELL,) if model_can_tell and not likely else ()
    return Message("warning", "Kind of image unknown", meaning, action, links=links)


def no_image() -> Message:
    """There is nothing to ask about."""
    return Message("info", "No image", f"Open an image or try {SAMPLES}.")


def first_sentence(exception: BaseException) -> str:
    """The first line of an error, as a sentence; the name of its kind where it says nothing."""
    lines = str(exception).strip().splitlines()
    return _sentence(lines[0] if lines else type(exception).__name__)


def _gb(value: float) -> str:
    return f"{value:.0f}" if value >= 9.5 or abs(value - round(value)) < 0.05 else f"{value:.1f}"


def _sentence(text: str) -> str:
    text = text.strip()
    if not text:
        return ""
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "?", "!")) else f"{text}."
