"""The UniBiomed dock: five sections and a footer. It only assembles and connects; decisions are made elsewhere."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtCore import QSize, QTimer
from qtpy.QtWidgets import QDockWidget, QFrame, QVBoxLayout, QWidget

from napari_unibiomed.canvas.layers import LayerGateway, toggle_findings
from napari_unibiomed.canvas.orientation import OrientationLetters
from napari_unibiomed.canvas.view import FittedView, plain_viewer
from napari_unibiomed.messages.message import Link
from napari_unibiomed.session.models import choices
from napari_unibiomed.session.phases import Phase
from napari_unibiomed.session.session import Session
from napari_unibiomed.session.shared_findings import findings_of
from napari_unibiomed.widgets.box_drawing import BoxDrawing
from napari_unibiomed.widgets.docking import DOCK, PANEL, OneEach, arrange, leave_frame, open_one
from napari_unibiomed.widgets.image_binding import ImageBinding
from napari_unibiomed.widgets.image_section import ImageSection
from napari_unibiomed.widgets.keys import Keys
from napari_unibiomed.widgets.lifetime import FrameWatch
from napari_unibiomed.widgets.message_links import MessageLinks
from napari_unibiomed.widgets.model_binding import ModelBinding
from napari_unibiomed.widgets.model_section import ModelSection
from napari_unibiomed.widgets.output_section import OutputSection
from napari_unibiomed.widgets.panel import FindingsPanel
from napari_unibiomed.widgets.run_layers import RunLayers
from napari_unibiomed.widgets.run_section import RunSection
from napari_unibiomed.widgets.running import Running
from napari_unibiomed.widgets.saved_runs import SavedRuns
from napari_unibiomed.widgets.saving import Saving
from napari_unibiomed.widgets.section import LinkLabel, ScrollColumn
from napari_unibiomed.widgets.shared_session import shared_session
from napari_unibiomed.widgets.task_section import TaskSection
from unibiomed_core import __version__
from unibiomed_core.types import NOTICE

if TYPE_CHECKING:
    import napari.viewer

    from napari_unibiomed.jobs import JobKind
    from unibiomed_core.types import Plane


WIDTH_PX = 320
NARROWEST_PX = 300
CITE = "https://arxiv.org/abs/2504.21336"


class UniBiomedDock(QWidget, metaclass=OneEach):
    """Choose a model, an image and a task; run it; take the results.

    Args:
        viewer: napari passes its own, which it knows by this very annotation.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        viewer = plain_viewer(viewer)
        self.session = shared_session(viewer)
        self.session.attach()
        self.gateway = LayerGateway(viewer, self.session.settings)
        settings = self.session.settings
        self.model = ModelSection(choices(settings), settings.device, settings.dtype)
        self.image = ImageSection(settings.window)
        self.task, self.run, self.output = TaskSection(), RunSection(), OutputSection()
        self._viewer = weakref.ref(viewer)
        self.fitted = FittedView(viewer)
        self.letters = OrientationLetters(self.gateway)
        self.image_binding = ImageBinding(self.image, self.gateway)
        self.boxes = BoxDrawing(viewer, self.gateway, self._on_boxes)
        self.model_binding = ModelBinding(self.session, self.model)
        self.running = Running(
            self.session, self.image_binding, self.boxes, RunLayers(self.gateway), self.run, self.open_panel
        )
        self.saving = Saving(self.session, self.gateway, self, self.running.say)
        self.links = MessageLinks(self.running, self.image, self.model, self.show_saved)
        self.keys = Keys(self)
        self._disconnect: list[Callable[[], None]] = []
        self._assemble()
        self._connect()
        findings_of(self.session)  # listens from now on, so that a panel that is opened later knows every run
        self._watch = FrameWatch(self, self.cleanup, self._on_shown)
        self._on_layers()
        self._on_phase(self.session.phase)

    def sizeHint(self) -> QSize:
        """As wide as its longest row; its content scrolls."""
        return QSize(WIDTH_PX, 640)

    # Commands; the names are those of ``shortcuts.SHORTCUTS``

    def run_report(self) -> bool:
        """Report on the chosen image with one click."""
        self.task.choose("report")
        return self.run_task()

    def run_task(self) -> bool:
        """Run the chosen task on the chosen image."""
        if not self.running.start(self.task.wishes):
            return False
        self.task.remember()
        return True

    def _show_plane(self, plane: Plane) -> None:
        if self.image_binding.volume is not None:
            self.gateway.show_plane(self.image_binding.volume, plane)

    def _take_region(self) -> None:
        problem = self.image_binding.take_region()
        if problem is not None:
            self.running.say(problem)

    def draw_box(self) -> None:
        """Draw a box on the chosen image."""
        self.choose_task("roi")
        if self.image.layer is not None:
            if self.image_binding.volume is not None:
                self.gateway.stand_on_slices(self.image_binding.volume)
            self.boxes.draw(self.image.layer)
        elif self.image_binding.problem is not None:
            self.running.say(self.image_binding.problem)

    def next_finding(self) -> None:
        """Select the next finding and jump to it."""
        step_finding(self.session, self.gateway, 1)

    def previous_finding(self) -> None:
        """Select the finding before and jump to it."""
        step_finding(self.session, self.gateway, -1)

    def show_or_hide_findings(self) -> None:
        """Show or hide every labels layer of findings."""
        toggle_findings(self.gateway)

    def cancel_run(self) -> None:
        """Stop after the slice in work."""
        self.session.cancel()

    def undo_last_run(self) -> None:
        """Take the last run away, whatever slice is shown."""
        self.running.undo()

    def choose_task(self, task: JobKind) -> None:
        """Switch to a task."""
        if not self.session.phase.busy:
            self.task.choose(task)

    def open_panel(self, in_front: bool = True) -> None:
        """Open the findings.

        Args:
            in_front: Raise them where they are a tab beside this dock.
        """
        viewer = self._viewer()
        if viewer is not None:
            open_one(viewer, FindingsPanel, PANEL)
            if not in_front:
                open_one(viewer, type(self), DOCK)

    def show_saved(self) -> None:
        """List the kept runs of the chosen image."""
        SavedRuns(self.session, self).show()

    def leave_frame(self) -> None:
        """Leave the dock frame for another one that napari is about to make; nothing else changes."""
        viewer = self._viewer()
        self._watch.release()
        self.keys.close()
        if viewer is not None:
            leave_frame(viewer, self)

    def cleanup(self) -> None:
        """End with the dock frame: stop the job, disconnect, drop the shortcuts; the last widget frees the model.

        Qt's side of this widget may be gone already, so only Python objects are touched.
        """
        while self._disconnect:
            self._disconnect.pop()()
        self.session.phase_changed.disconnect(self._on_phase, missing_ok=True)
        self.session.runs_changed.disconnect(self._on_runs, missing_ok=True)
        self.session.saved_listed.disconnect(self._on_saved, missing_ok=True)
        image, model = self.image_binding, self.model_binding
        for part in (self.keys, self.boxes, self.fitted, self.letters, image, model, self.running):
            part.close()
        self.session.detach()

    # Inside

    def _assemble(self) -> None:
        body = QWidget()
        column = QVBoxLayout(body)
        column.setContentsMargins(6, 4, 6, 4)
        column.setSpacing(4)
        for section in (self.model, self.image, self.task, self.run, self.output):
            column.addWidget(section)
            line = QFrame()
            line.setFrameShape(QFrame.Shape.HLine)
            column.addWidget(line)
        column.addWidget(_footer())
        column.addStretch(1)
        area = ScrollColumn(body)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(area)
        self.area = area
        self.setMinimumWidth(NARROWEST_PX)
        self.setAccessibleName("UniBiomed")

    def _connect(self) -> None:
        self.session.phase_changed.connect(self._on_phase)
        self.session.runs_changed.connect(self._on_runs)
        self.session.saved_listed.connect(self._on_saved)
        self._disconnect = [
            self.gateway.on_layers_changed(self._on_layers),
            self.gateway.on_active_changed(self._on_layers),
            self.gateway.on_view_changed(self.image_binding.follow_view),
            self.gateway.on_layer_event({"data"}, self._on_data),
        ]
        self.image_binding.arrived = self._on_volume
        self.image.image_changed.connect(self._on_image_choice)
        self.image.follow_changed.connect(self._on_layers)
        self.image.view_changed.connect(self._on_plane)
        self.image.planes.chosen.connect(self._show_plane)
        self.image.region_wanted.connect(self._take_region)
        self.image.window_changed.connect(self.image_binding.follow_window)
        self.task.changed.connect(self._on_task)
        self.task.run_requested.connect(self.run_task)
        self.task.draw_requested.connect(self.draw_box)
        self.task.from_view_requested.connect(self._on_from_view)
        self.run.run_requested.connect(self.run_task)
        self.run.retry_requested.connect(self.running.retry)
        self.run.cancel_requested.connect(self.cancel_run)
        self.run.segment_requested.connect(self.running.segment_named)
        self.run.link_clicked.connect(self._on_link)
        self.output.undo_requested.connect(self.undo_last_run)
        self.output.save_requested.connect(self.saving.save_masks)
        self.output.export_requested.connect(self.saving.export)
        self.output.saved_requested.connect(self.show_saved)
        self.output.panel_requested.connect(lambda: self.open_panel(True))

    def _on_shown(self, frame: QDockWidget) -> None:
        self.keys.live_in(frame)
        QTimer.singleShot(0, self._place)  # napari is not done with the frame yet
        choice = self.model.choice
        self.model.set_folded(choice is not None and choice.here)  # nothing has to be done there

    def _place(self) -> None:
        viewer = self._viewer()
        if viewer is not None:
            arrange(viewer, self)

    def _on_layers(self) -> None:
        self.running.follow_layers()
        if self.image_binding.take_layers(held=self.session.phase.busy):
            self._on_volume()

    def _on_data(self) -> None:
        if self.image_binding.is_replaced:
            self._on_image_choice()

    def _on_image_choice(self) -> None:
        self.image_binding.take_choice()
        self._on_volume()

    def _on_volume(self) -> None:
        """Another volume was chosen, or none."""
        binding = self.image_binding
        self.session.set_image(binding.volume)
        self._on_plane()
        if binding.volume is not None:
            self.task.set_targets(self.model_binding.targets(binding.volume.modality))
        elif binding.problem is not None and not self.session.phase.busy:
            self.running.say(binding.problem)
            self._let_model_tell()

    def _let_model_tell(self) -> None:
        """A model that is there is asked at once what a picture is; none is loaded for that alone."""
        if self.session.info is not None and not self.session.phase.busy:
            self.running.look()

    def _on_plane(self) -> None:
        volume = self.image_binding.volume
        if volume is not None:
            self.task.set_slices(volume.slice_count(self.image_binding.plane), volume.is_2d)
        self.image_binding.follow_view()
        self._on_task()

    def _on_task(self) -> None:
        self.run.set_task(self.task.task)
        self.run.set_estimate(self.running.estimate(self.task.wishes))

    def _on_from_view(self) -> None:
        self.task.set_range(*self.running.range_from_view())

    def _on_boxes(self) -> None:
        """Boxes were drawn, moved or deleted half a second ago."""
        self.running.follow_boxes()
        if self.task.live.isChecked() and self.task.task == "roi" and not self.session.phase.busy:
            self.run_task()

    def _on_link(self, link: Link) -> None:
        self.links.follow(link)

    def _on_runs(self) -> None:
        self._on_phase(self.session.phase)

    def _on_saved(self) -> None:
        self.output.show_saved([saved.size for saved in self.session.saved_runs])

    def _on_phase(self, phase: Phase) -> None:
        self.image.show_phase(phase)
        self.task.show_phase(phase)
        self.run.show_phase(phase)
        runs = self.session.runs
        self.output.show_phase(phase, bool(runs), any(run.report is not None for run in runs))
        if not phase.busy:
            self._on_layers()  # another image may have been selected while a run held this one
            QTimer.singleShot(0, self._let_model_tell)  # a phase of its own, after this one was told to all
        if phase in (Phase.READY, Phase.DONE):
            self.run.set_estimate(self.running.estimate(self.task.wishes))
        if phase in (Phase.RUNNING, Phase.READY):
            self.model.set_folded(True)
        if phase is Phase.RUNNING and not self.image.previewing:
            self.image.set_folded(True)


def _footer() -> LinkLabel:
    """Notice, version and citation."""
    footer = LinkLabel()
    footer.set_template(f'{NOTICE}<br>UniBiomed {__version__} · <a href="{CITE}" style="color:{{colour}}">cite</a>')
    footer.setOpenExternalLinks(True)
    footer.setAccessibleName("Research use only")
    return footer


def step_finding(session: Session, gateway: LayerGateway, step: int) -> bool:
    """Select the next (1) or previous (-1) finding and jump to it; False where there is none."""
    from napari_unibiomed.widgets.canvas_link import centre_of

    model = findings_of(session)
    number = model.neighbour(step)
    row = None if number is None else model.row(number)
    if row is None or model.run is None:
        return False
    model.select(number)
    if row.slice_largest is None:
        return False
    return gateway.jump(model.run.volume, row.plane, row.slice_largest, centre_of(row, row.slice_largest))
