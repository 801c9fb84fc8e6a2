"""The findings of the run that is shown: rows, selection, filter and edits, as an evented model without widgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from psygnal import Signal

from napari_unibiomed.findings import edits, saved_edits
from napari_unibiomed.findings.edits import Edit
from napari_unibiomed.findings.rows import BOX_REMOVED, FindingRow, arranged, row_of
from napari_unibiomed.findings.streaming import RunRows, collect, provisional_rows
from unibiomed_core.types import CroppedMask, Finding

if TYPE_CHECKING:
    from napari_unibiomed.jobs import Run

EmptyState = Literal["no run", "nothing found", "all filtered", ""]


class FindingsModel:
    """Rows of one run at a time; every run keeps its own edits.

    Attributes:
        changed: The rows as a whole, the run or the filter changed.
        row_changed: One row changed; its number.
        mask_changed: The mask of one finding was put back by an undo; its number. The labels have to be repainted.
        selected: Another row is selected; its number or None.
        newest: The highest number of a run that was shown.
        kept_edits: Edits of runs, by their number, that rows have from the start.
    """

    changed = Signal()
    row_changed = Signal(int)
    mask_changed = Signal(int)
    selected = Signal(object)

    def __init__(self) -> None:
        self.run: Run | None = None
        self._kept: dict[int, RunRows] = {}
        self._selection: int | None = None
        self._filter_text = ""
        self._hide_rejected = False
        self.newest = 0
        self.kept_edits: Mapping[int, saved_edits.Edits] = {}

    @property
    def rows(self) -> tuple[FindingRow, ...]:
        """All rows of the run, in the order of its report."""
        return arranged(self._state.rows)

    @property
    def shown_rows(self) -> tuple[FindingRow, ...]:
        """The rows that pass the filter."""
        return tuple(row for row in self.rows if self.passes(row))

    @property
    def finished(self) -> bool:
        """Whether the rows are the run's last word, and not what was gathered on the way."""
        return self._state.finished

    @property
    def empty_state(self) -> EmptyState:
        """Why nothing is listed; empty where something is."""
        if self.run is None:
            return "no run"
        if not self.rows:
            return "nothing found" if self.finished else ""
        return "" if self.shown_rows else "all filtered"

    @property
    def counts_text(self) -> str:
        """How many rows of each kind there are or how many are shown, and how many were rejected."""
        rows = tuple(self._state.rows.values())
        shown = sum(self.passes(row) for row in rows)
        if not rows:
            return "No boxes" if self.run is not None and self.run.job.kind == "roi" else "No findings"
        text = _kinds_text(rows) if shown == len(rows) else f"{shown} of {len(rows)} shown"
        rejected = sum(row.rejected for row in rows)
        return f"{text}, {rejected} rejected" if rejected else text

    def row(self, number: int) -> FindingRow | None:
        return self._state.rows.get(number)

    def rows_of(self, run: Run) -> tuple[FindingRow, ...]:
        """The rows of any run, edits included, whether it is shown or not."""
        if run.number not in self._kept:
            self._kept[run.number] = self._collected(run)
        return tuple(self._kept[run.number].rows.values())

    def set_run(self, run: Run | None) -> None:
        """Show a run; its edits are those it had when it was last shown."""
        if run is not None and (run.number not in self._kept or not self._kept[run.number].finished):
            self._kept[run.number] = self._collected(run)
        self.run = run
        self.newest = max(self.newest, 0 if run is None else run.number)
        self._select(None)
        self.changed.emit()

    def keep_only(self, runs: Sequence[Run]) -> None:
        """Drop the rows of all other runs; where the shown one is among those, the newest that is left is shown."""
        numbers = {run.number for run in runs}
        self._kept = {number: rows for number, rows in self._kept.items() if number in numbers}
        if self.run is not None and self.run.number not in numbers:
            self.set_run(runs[-1] if runs else None)

    def take_slice(self) -> None:
        """List what the slices answered so far have in common, by target; linked findings replace it."""
        if self.run is None or self.finished or any(row.has_mask for row in self.rows):
            return
        self._state.rows = {row.number: row for row in provisional_rows(self.run)}
        self.changed.emit()

    def add(self, finding: Finding) -> None:
        """Append a linked finding; the first one replaces the provisional rows."""
        if self.run is None:
            return
        state = self._state
        if not any(row.has_mask for row in state.rows.values()):
            state.rows = {}
        state.rows[finding.number] = row_of(finding, self.run.job.volume)
        self.changed.emit()

    def finish(self, run: Run) -> None:
        """Take a run's last word."""
        self._kept[run.number] = self._collected(run)
        if run is self.run:
            self.changed.emit()

    @property
    def selection(self) -> int | None:
        return self._selection

    def select(self, number: int | None) -> None:
        """Select a row; a number without a row selects nothing. Equal selections are not told again."""
        self._select(number if number in self._state.rows else None)

    def neighbour(self, step: int) -> int | None:
        """The number of the next (1) or previous (-1) shown row, around the ends; None where none is shown."""
        numbers = [row.number for row in self.shown_rows]
        if not numbers:
            return None
        if self._selection not in numbers:
            return numbers[0 if step > 0 else -1]
        return numbers[(numbers.index(self._selection) + step) % len(numbers)]

    @property
    def filter_text(self) -> str:
        return self._filter_text

    @filter_text.setter
    def filter_text(self, text: str) -> None:
        if text != self._filter_text:
            self._filter_text = text
            self.changed.emit()

    @property
    def hide_rejected(self) -> bool:
        return self._hide_rejected

    @hide_rejected.setter
    def hide_rejected(self, hide: bool) -> None:
        if hide != self._hide_rejected:
            self._hide_rejected = hide
            self.changed.emit()

    def clear_filter(self) -> None:
        self._filter_text, self._hide_rejected = "", False
        self.changed.emit()

    def passes(self, row: FindingRow) -> bool:
        """Whether a row is shown: all words of the filter stand in its name, side or flags."""
        if self._hide_rejected and row.rejected:
            return False
        source = row.finding.phrase if row.finding is not None else ""
        text = " ".join((str(row.number), row.phrase, source, row.side, *row.all_flags)).casefold()
        return all(word in text for word in self._filter_text.casefold().split())

    def reject(self, number: int) -> None:
        """Grey a row and leave it out of exports; nothing happens where it is rejected."""
        row = self.row(number)
        if row is not None and self.finished and not row.rejected:
            self._apply(edits.reject(row))

    def restore(self, number: int) -> None:
        row = self.row(number)
        if row is not None and row.rejected:
            self._apply(edits.restore(row))

    def rename(self, number: int, phrase: str) -> None:
        """Give a row another name; an empty or equal one changes nothing."""
        row, phrase = self.row(number), " ".join(phrase.split())
        if row is not None and self.finished and phrase and phrase != row.phrase:
            self._apply(edits.rename(row, phrase))

    def remeasure(self, number: int, mask: CroppedMask) -> None:
        """Give a finding another mask, measured anew; an empty one rejects it.

        Args:
            mask: (Z, Y, X) on the grid of the run's volume.
        """
        row = self.row(number)
        if row is None or row.finding is None or self.run is None:
            return
        measured = edits.measured_again(row.finding, mask, self.run.job.volume)
        self._apply(edits.redraw(row, row_of(measured, self.run.job.volume) if measured else None))

    def group(self) -> AbstractContextManager[None]:
        """Edits made inside are taken back together."""
        return self._state.history.group()

    def undo(self) -> int | None:
        """Take back the last edit; the number of its row, which is then selected, or None where there is none."""
        steps = self._state.history.pop()
        for edit in steps:
            hidden = self._state.rows[edit.number].hidden
            self._put(replace(edit.before, hidden=hidden))
            if edit.changes_mask:
                self.mask_changed.emit(edit.number)
        if not steps:
            return None
        self.select(steps[-1].number)
        return steps[-1].number

    @property
    def undo_words(self) -> str:
        """What undo would take back; empty where there is nothing."""
        return self._state.history.words

    def hide(self, number: int, hidden: bool = True) -> None:
        """Take one finding off the canvas, or show it again; not an edit."""
        row = self.row(number)
        if row is not None and row.hidden != hidden:
            self._put(replace(row, hidden=hidden))

    def show_only(self, numbers: Sequence[int] | None) -> None:
        """Hide all findings but these; None shows all."""
        self._put_many([replace(r, hidden=numbers is not None and r.number not in numbers) for r in self.rows])

    def mark_box_removed(self, number: int) -> None:
        """The box of an answer was deleted; the row stays."""
        row = self.row(number)
        if row is not None and row.answers and BOX_REMOVED not in row.flags:
            self._put(replace(row, flags=(*row.flags, BOX_REMOVED)))

    def set_colours(self, colours: Mapping[int, str]) -> None:
        """Take the colours (#RRGGBB) that the labels have on the canvas."""
        rows = [row for row in self.rows if colours.get(row.number, row.colour).casefold() != row.colour.casefold()]
        self._put_many([replace(row, colour=colours[row.number]) for row in rows])

    @property
    def unseen(self) -> frozenset[int]:
        """Numbers that the canvas does not show: hidden and rejected ones."""
        return frozenset(row.number for row in self.rows if row.hidden or row.rejected)

    @property
    def _state(self) -> RunRows:
        return RunRows() if self.run is None else self._kept.setdefault(self.run.number, RunRows())

    def _collected(self, run: Run) -> RunRows:
        state = collect(run)
        if state.finished:
            saved_edits.apply(self.kept_edits.get(run.number, {}), state.rows, run.volume)
        return state

    def _select(self, number: int | None) -> None:
        if number != self._selection:
            self._selection = number
            self.selected.emit(number)

    def _apply(self, edit: Edit) -> None:
        self._state.history.push(edit)
        self._put(edit.after)

    def _put(self, row: FindingRow) -> None:
        self._state.rows[row.number] = row
        self.row_changed.emit(row.number)

    def _put_many(self, rows: Sequence[FindingRow]) -> None:
        """Change many rows and say so once."""
        self._state.rows |= {row.number: row for row in rows}
        if rows:
            self.changed.emit()


def _kinds_text(rows: Sequence[FindingRow]) -> str:
    """``2 abnormal, 1 structure``."""
    counts = {
        "box": sum(not row.kind for row in rows),
        "abnormal": sum(row.kind == "abnormal" for row in rows),
        "unsure": sum(row.kind == "unsure" for row in rows),
        "structure": sum(row.kind == "structure" for row in rows),
    }
    plural = {"box": "boxes", "structure": "structures"}
    return ", ".join(f"{n} {kind if n == 1 else plural.get(kind, kind)}" for kind, n in counts.items() if n)
