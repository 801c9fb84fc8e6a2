"""What can be done with one row: the entries of the panel's context menu."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QMenu, QWidget

from napari_unibiomed.findings import FindingsModel
from napari_unibiomed.rows import FindingRow

if TYPE_CHECKING:
    from napari_unibiomed.widgets.row_actions import RowActions

Entry = tuple[str, Callable[[], object], bool]


def entries(row: FindingRow, model: FindingsModel, actions: RowActions, rename: Callable[[], object]) -> list[Entry]:
    """Words, what they do, and whether they can be chosen now."""
    number, finished = row.number, model.finished
    others_hidden = model.unseen >= {r.number for r in model.rows if r.number != number}
    alone: Entry = ("Show only this", lambda: model.show_only([number]), row.has_mask)
    everything: Entry = ("Show all", lambda: model.show_only(None), row.has_mask)
    keep: Entry = ("Restore", lambda: model.restore(number), True)
    drop: Entry = ("Reject\tDel", lambda: model.reject(number), finished)
    return [
        ("Jump to it\tEnter", lambda: actions.jump(number), row.slice_largest is not None),
        everything if others_hidden and len(model.rows) > 1 else alone,
        ("Copy measurements", lambda: actions.copy(number), True),
        ("Make own layer", lambda: actions.own_layer(number), row.has_mask),
        ("Save mask…", lambda: actions.save_mask(number), row.has_mask),
        ("Re-run on this slice", lambda: actions.run_again(number), actions.can_run_again(row)),
        ("Rename\tF2", rename, finished),
        keep if row.rejected else drop,
    ]


def menu_of(found: list[Entry], parent: QWidget) -> QMenu:
    """The entries as a menu."""
    menu = QMenu(parent)
    for words, call, enabled in found:
        action = menu.addAction(words)
        assert action is not None
        action.setEnabled(enabled)
        action.triggered.connect(lambda _=False, call=call: call())
    return menu
