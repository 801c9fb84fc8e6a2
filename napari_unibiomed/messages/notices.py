"""What is said about the course of the work: how a run ended, what was restored, what has to wait."""

from __future__ import annotations

from collections.abc import Sequence

from napari_unibiomed.messages.catalogue import clock
from napari_unibiomed.messages.message import Link, Message


def one_job_at_a_time(running: str) -> Message:
    """A second job while one runs; it is not queued."""
    return Message("warning", "One job at a time", f"“{running}” is still going on.", "Wait for it or cancel it.")


def answered_by_another_model(name: str) -> Message:
    """A run that would go on with other weights than it was begun with."""
    return Message(
        "warning",
        "Another model is loaded",
        f"The finished slices were answered by “{name}”, and a run never mixes two models.",
        "Load that model to go on, or start a new run.",
    )


def kind_seen(label: str, share: float) -> Message:
    """The model told how a picture was taken."""
    return Message("info", f"The model sees {label} ({share:.2f})", "", "Choose another under Image if that is wrong.")


def loading_cancelled() -> Message:
    """Loading or downloading was stopped by the user."""
    return Message("info", "Loading cancelled", "No model is loaded.", "The next run loads it.")


def restored(name: str, done: int, total: int) -> Message:
    """An autosaved run was brought back."""
    if done >= total:
        return Message("info", "Restored", f"\u201c{name}\u201d with all of its {total} slices.")
    return Message(
        "info",
        "Restored",
        f"\u201c{name}\u201d with {done} of {total} slices.",
        "Resume \u00b7 Discard.",
        links=(Link.RESUME, Link.DISCARD),
    )


def can_be_restored(name: str, done: int, total: int, count: int = 1) -> Message:
    """Runs of the image that was opened lie on the disk; the newest is named.

    Args:
        count: How many there are.
    """
    title = "An earlier run was saved" if count == 1 else f"{count} earlier runs were saved"
    which = "" if count == 1 else "The newest: "
    return Message(
        "info",
        title,
        f"{which}\u201c{name}\u201d, {done} of {total} slices, on this image.",
        "Restore \u00b7 Saved runs.",
        links=(Link.RESTORE, Link.SAVED_RUNS),
    )


def labels_on_another_grid(name: str) -> Message:
    """A findings layer was given an array of another shape than its image."""
    return Message(
        "warning",
        "Labels on another grid",
        f"\u201c{name}\u201d was given an array of another shape than its image, so it is not measured any more.",
        "Put labels of the image's shape back; until then this run is not exported.",
    )


def no_finding(numbers: Sequence[int]) -> Message:
    """The user painted with numbers that no finding has."""
    listed = ", ".join(map(str, numbers))
    title = f"Label {listed} is no finding" if len(numbers) == 1 else f"Labels {listed} are no findings"
    return Message(
        "warning", title, "It is neither measured nor exported.", "Select a row first to paint on its finding."
    )


def no_such_slice(number: int, total: int) -> Message:
    """A slice that the image does not have; numbers count from 0."""
    return Message("error", "No such slice", f"Slice {number} was asked for.", f"Choose 0 to {total - 1}.")


def nothing_to_examine() -> Message:
    """A job without a slice or box."""
    return Message("error", "Nothing to examine", "No slice and no box is chosen.", "Choose slices or draw a box.")


def window_shows_nothing(low: float, high: float, lowest: float, highest: float) -> Message:
    """Every value of the image lies on one side of the window."""
    return Message(
        "warning",
        "The window shows nothing",
        f"It runs from {low:g} to {high:g}, and the image from {lowest:g} to {highest:g}.",
        "Choose another window.",
    )


def not_kept(why: str) -> Message:
    """Autosave cannot write; the run itself goes on."""
    return Message("warning", "This run is not autosaved", why, "Free some space, or choose another autosave folder.")


def edits_not_kept(why: str) -> Message:
    """What the user did with findings cannot be written; it stays in the window."""
    return Message("warning", "Your edits are not autosaved", why, "Export the report to keep them.")


def edits_lost(why: str) -> Message:
    """The edits of a restored run cannot be read; the run is there without them."""
    return Message("warning", "Saved edits cannot be read", why, "The run is shown as the model gave it.")


def edits_dropped() -> Message:
    """A run that goes on is linked anew from all of its slices, so that earlier edits have no finding any more."""
    return Message(
        "info",
        "Edits dropped",
        "The run goes on, and its findings are linked anew.",
        "Edit them again when it is done.",
    )


def finished(
    abnormal: int, unsure: int, structures: int, slices: int, seconds: float, *, report: bool = True
) -> Message:
    """The end of a run over slices; an empty result is said, never shown as silence.

    Args:
        abnormal: Rows whose checks agree, or that were not checked.
        unsure: Abnormal rows whose checks do not agree.
        structures: Rows of anatomy.
        report: All that the model knows was searched, and not what was named alone.
    """
    where, never = f"in {_count(slices, 'slice')}", "This does not say that the image is normal."
    if not (abnormal or unsure or structures):
        return Message("info", f"No finding was produced {where}", never)
    told = [_count(abnormal, "abnormal finding")] if abnormal else []
    told += [_count(unsure, "unsure finding")] if unsure else []
    told += [f"{_count(structures, 'structure')} measured"] if structures else []
    meaning = f"No abnormal finding. {never}" if report and not abnormal and not unsure else ""
    return Message("info", f"{', '.join(told)} {where}, {clock(seconds)}", meaning)


def answered(answers: int, seconds: float) -> Message:
    """The end of questions about slices or boxes."""
    return Message("info", f"{_count(answers, 'answer')}, {clock(seconds)}", "See the panel.")


def _count(number: int, noun: str) -> str:
    return f"1 {noun}" if number == 1 else f"{number} {noun}s"
