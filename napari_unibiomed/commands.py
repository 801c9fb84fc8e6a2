"""What menus, palette and shortcuts call. Each opens the dock where it is closed and then does what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unibiomed.messages.from_error import from_error
from napari_unibiomed.settings import read_settings
from unibiomed_core.errors import UniBiomedError

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_unibiomed.widgets.dock import UniBiomedDock
    from napari_unibiomed.widgets.panel import FindingsPanel


def segment_layer(viewer: Viewer) -> None:
    """Segment what is named on the selected image: open the dock at that task."""
    open_dock(viewer).choose_task("segment")


def classify_region(viewer: Viewer) -> None:
    """Name what lies in a box: open the dock and let the user drag one."""
    open_dock(viewer).draw_box()


def measure_labels(viewer: Viewer) -> None:
    """Measure the selected labels: findings of ours in the panel, others as a new layer with a table of features."""
    from napari.utils.notifications import show_info, show_warning

    from napari_unibiomed.canvas.layers import LayerGateway
    from napari_unibiomed.findings.measuring import measure_layer

    gateway = LayerGateway(getattr(viewer, "__wrapped__", viewer), read_settings())
    labels = gateway.active_labels()
    if labels is None:
        show_warning("Select a labels layer in the list of layers first.")
    elif gateway.is_ours(labels, "findings"):
        open_panel(viewer)
    else:
        try:
            made = measure_layer(gateway, labels)
        except UniBiomedError as error:
            show_warning(from_error(error).text)
        else:
            show_info(f"\u201c{made.name}\u201d holds the measurements: see its features table.")


def run_report(viewer: Viewer) -> None:
    """Report on the chosen image."""
    open_dock(viewer).run_report()


def run_task(viewer: Viewer) -> None:
    """Run the chosen task."""
    open_dock(viewer).run_task()


def cancel_run(viewer: Viewer) -> None:
    """Stop after the slice in work."""
    open_dock(viewer).cancel_run()


def undo_last_run(viewer: Viewer) -> None:
    """Take the last run away."""
    open_dock(viewer).undo_last_run()


def next_finding(viewer: Viewer) -> None:
    """Select the next finding and jump to it."""
    open_dock(viewer).next_finding()


def previous_finding(viewer: Viewer) -> None:
    """Select the finding before and jump to it."""
    open_dock(viewer).previous_finding()


def show_or_hide_findings(viewer: Viewer) -> None:
    """Show or hide the findings on the canvas."""
    open_dock(viewer).show_or_hide_findings()


def open_dock(viewer: Viewer) -> UniBiomedDock:
    """The dock, opened or brought to the front; there is one in a window."""
    from napari_unibiomed.widgets.dock import UniBiomedDock
    from napari_unibiomed.widgets.docking import DOCK, open_one

    return open_one(viewer, UniBiomedDock, DOCK)


def open_panel(viewer: Viewer) -> FindingsPanel:
    """The findings panel, opened or brought to the front; there is one in a window."""
    from napari_unibiomed.widgets.docking import PANEL, open_one
    from napari_unibiomed.widgets.panel import FindingsPanel

    return open_one(viewer, FindingsPanel, PANEL)
