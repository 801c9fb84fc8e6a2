"""Ties task, run and output sections to the session: from a click to a job, and from what is said to what is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer

from napari_unibiomed.canvas.boxes import phrase_of
from napari_unibiomed.jobs import Job, Run, RunAnswer
from napari_unibiomed.messages import catalogue
from napari_unibiomed.messages.from_error import from_error
from napari_unibiomed.messages.message import Message
from napari_unibiomed.messages.notices import kind_seen
from napari_unibiomed.runs.preflight import estimate_text, preflight, slice_count
from napari_unibiomed.runs.requests import TaskOptions, make_job, range_around, segment_in_box
from napari_unibiomed.session.phases import Phase
from napari_unibiomed.session.shared_findings import findings_of
from napari_unibiomed.widgets.run_layers import LAYER_KINDS
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.errors import ReadError, UniBiomedError
from unibiomed_core.modalities import MODALITIES
from unibiomed_core.report import answer_text
from unibiomed_core.types import Volume

if TYPE_CHECKING:
    from napari_unibiomed.session.session import Session
    from napari_unibiomed.widgets.box_drawing import BoxDrawing
    from napari_unibiomed.widgets.image_binding import ImageBinding
    from napari_unibiomed.widgets.run_layers import RunLayers
    from napari_unibiomed.widgets.run_section import RunSection


class Running:
    """Starts jobs on the chosen image and keeps layers and messages in step with them.

    Args:
        open_panel: Opens the findings, in front where the argument is true.
    """

    def __init__(
        self,
        session: Session,
        image: ImageBinding,
        boxes: BoxDrawing,
        layers: RunLayers,
        section: RunSection,
        open_panel: Callable[[bool], None],
    ) -> None:
        self.session, self.image, self.boxes, self.layers, self.section = session, image, boxes, layers, section
        self._open_panel = open_panel
        self._notes: tuple[Message, ...] = ()
        self._named: RunAnswer | None = None
        self._wanted: TaskOptions | None = None
        """What is to be run as soon as the model has told the kind of the image."""
        self._counted: tuple[Volume, RunRequest, int] | None = None
        """What the last estimate was made of, and its number of slices."""
        signals = (
            (session.slice_done, self._on_slice),
            (session.finished, self._on_finished),
            (session.restored, self._on_restored),
            (session.message_shown, self._on_message),
            (session.progressed, section.show_progress),
            (session.phase_changed, self._on_phase),
            (session.looked, self._on_looked),
        )
        for signal, slot in signals:
            signal.connect(slot)
        self._signals = signals

    def look(self, then: TaskOptions | None = None) -> bool:
        """Let the model tell the kind of the chosen picture where nobody did; False where that is not to be told.

        Args:
            then: What to run when it is known.
        """
        undecided = self.image.undecided
        if undecided is None or not self.session.look(undecided):
            return False
        self._wanted = then
        self.say()
        return True

    def start(self, wishes: TaskOptions, notes: Sequence[Message] = ()) -> bool:
        """Check, then run; a problem is said and nothing is started.

        A picture whose kind nobody told is looked at by the model first.

        Args:
            notes: What is said beside the progress.
        """
        if self.image.undecided is not None:
            return self.look(wishes)
        volume, source = self.image.volume, self.image.section.layer
        if volume is None or source is None:
            self.say(self.image.problem or catalogue.no_image())
            return False
        try:
            boxes = self.boxes.boxes(source, volume) if wishes.task == "roi" else ()
            window, current = self.image.section.chosen_window, self.image.current
            plane = self.image.plane_of(wishes.slices)
            job = make_job(wishes, volume, plane, window, current=current, boxes=boxes)
        except UniBiomedError as error:
            self.say(from_error(error))
            return False
        about_boxes = [Message("info", "Box", note) for box in boxes for note in box.notes]
        if boxes:
            self.image.show_region(boxes[-1].region)
        return self.begin(job, [*notes, *about_boxes])

    def segment_named(self) -> bool:
        """Segment what the last box was named, where it meets the box."""
        if self._named is None or self._named.region is None or self.session.current is None:
            return False
        before = self.session.current.job
        phrase, region = phrase_of(self._named.text), self._named.region
        return self.begin(segment_in_box(phrase, region, before.volume, before.request.window))

    def begin(self, job: Job, notes: list[Message] | None = None) -> bool:
        """Pre-flight, then run; what blocks is said, and everything else is said beside the progress."""
        source = self.image.section.layer
        found = preflight(job, seconds_per_slice=self.session.pace.get(job.kind))
        checked = [*(notes or ()), *found.messages]
        blocking = [message for message in checked if message.kind == "error"]
        if blocking or source is None:
            self.say(*(blocking or [catalogue.no_image()]))
            return False
        if not self.session.start(job):
            return False
        self._notes = tuple(checked)
        self._forget_answer()
        self._show()
        if self.session.current is not None and self.session.current.job is job:
            self.layers.begin(self.session.current, source)
        return True

    def resume(self) -> bool:
        """Go on with the slices that were left."""
        run = self.session.current
        source = None if run is None else self.layers.source_of(run)
        if run is None or not self.session.resume():
            return False
        self._show()  # "Cancelled … Resume · Discard" goes
        if source is not None:
            self.layers.begin(run, source)
        return True

    def retry(self) -> bool:
        """Do again what failed."""
        run = self.session.current
        source = None if run is None else self.layers.source_of(run)
        if not self.session.retry():
            return False
        self._show()
        if run is not None and source is not None and run is self.session.current:
            self.layers.begin(run, source)
        return True

    def undo(self) -> Run | None:
        """Take the last run and its layers away, whatever is shown."""
        run = self.session.undo_last_run()
        if run is not None:
            self.layers.remove(run)
            self._forget_answer()
            self.say()
        return run

    def follow_layers(self) -> None:
        """A layer left the viewer: a job on it stops, and what is finished is kept."""
        run = self.layers.running
        if run is not None and self.layers.source_of(run) is None:
            self.session.image_closed(run.job.volume)
        # Layer and run have one name, and the user changes it in napari's list of layers.
        renamed = self.layers.take_names(self.session.runs)
        for named in renamed:
            self.session.keep_name(named)
        if renamed:
            self.session.runs_changed.emit()

    def estimate(self, wishes: TaskOptions) -> str:
        """How many slices a task looks at and how long it may take; empty for boxes, which take a moment."""
        volume, source = self.image.volume, self.image.section.layer
        if volume is None or source is None or wishes.task == "roi":
            return ""
        # The text may not be written yet.
        looked_at = TaskOptions(wishes.task, "anything", wishes.slices, options=wishes.options)
        window, current = self.image.section.chosen_window, self.image.current
        try:
            plane = self.image.plane_of(wishes.slices)
            job = make_job(looked_at, volume, plane, window, current=current)
        except UniBiomedError:
            return ""
        if self._counted is None or self._counted[0] is not volume or self._counted[1] != job.request:
            # Every slice is looked at for it, and this is asked at every key.
            self._counted = volume, job.request, slice_count(job)
        shown = "" if volume.is_2d else job.request.plane
        return estimate_text(self._counted[2], self.session.pace.get(job.kind), shown)

    def range_from_view(self) -> tuple[int, int]:
        """Slice numbers around the shown slice."""
        volume, index = self.image.volume, self.image.current
        return (0, 0) if volume is None or index is None else range_around(index, volume, self.image.plane)

    def follow_boxes(self) -> None:
        """Boxes moved: show the newest in the preview, and mark the rows whose box is gone."""
        volume, source = self.image.volume, self.image.section.layer
        if volume is None or source is None:
            return
        drawn = self.boxes.regions(source, volume)
        self.image.show_region(drawn[-1] if drawn else None)
        model = findings_of(self.session)
        for row in model.rows if model.run is not None and model.run.volume is volume else ():
            if any(answer.region is not None and answer.region not in drawn for answer in row.answers):
                model.mark_box_removed(row.number)

    def say(self, *said: Message) -> None:
        """Show messages until the next action."""
        self._notes = ()
        self.section.show_messages(said)

    def close(self) -> None:
        """Listen no more, and paint nothing any more."""
        for signal, slot in self._signals:
            signal.disconnect(slot, missing_ok=True)
        self.layers.stop()

    def _forget_answer(self) -> None:
        self._named = None
        self.section.offer_segment("")
        self.section.show_answer("")

    def _on_slice(self, run: Run, index: int) -> None:
        self.layers.on_slice(run, index)

    def _on_restored(self, run: Run) -> None:
        """A kept run of the chosen image is back: show it like one that ended."""
        source = self.image.section.layer
        if source is not None and self.image.volume is run.job.volume:
            self.layers.begin(run, source)
        self._on_finished(run)

    def _on_phase(self, phase: Phase) -> None:
        # A run that failed or was stopped before its first slice ends without saying so.
        if not phase.busy and (run := self.layers.running) is not None:
            self.layers.end(run)

    def _on_looked(self, asked: Volume, seen: Volume | ReadError) -> None:
        """The model told what a picture is, unless the user did so meanwhile or chose another image."""
        if asked is not self.image.undecided:
            return
        if isinstance(seen, ReadError):
            self.image.take_not_seen(seen.values["likely"])
            self.image.arrived()
            return
        told = kind_seen(MODALITIES[seen.modality].label, seen.modality_shares[0][1])
        wanted, self._wanted = self._wanted, None
        self.image.take_seen(seen)
        self.image.arrived()
        if wanted is None or not self.start(wanted, [told]):
            self._notes = (*self._notes, told)
            self._show()

    def _on_message(self, message: Message) -> None:
        self._show()

    def _show(self) -> None:
        self.section.show_messages([*self._notes, *self.session.messages])

    def _on_finished(self, run: Run) -> None:
        self.layers.end(run)
        self._named = next((a for a in reversed(run.answers) if a.prompt.task == "roi_class"), None)
        if self._named is not None:
            self.section.offer_segment(phrase_of(self._named.text))
        if run.job.kind in ("ask", "roi"):
            self.section.show_answer(answer_words(run.answers))
        # After an error or a cancel the message in the dock matters more than the table in front of it.
        in_front = run.complete and run.job.kind in LAYER_KINDS
        QTimer.singleShot(0, partial(self._open_panel, in_front))  # a turn of its own: to build a panel takes a moment


def answer_words(answers: Sequence[RunAnswer]) -> str:
    """The answers to the last question or box, in full; earlier ones are in the panel."""
    if not answers:
        return ""
    last = answers[-1]
    same = [a for a in answers if (a.plane, a.index, a.region) == (last.plane, last.index, last.region)]
    return "\n".join(answer_text(a.text, a.score, a.caution) if a.text else "The model gave no words." for a in same)
