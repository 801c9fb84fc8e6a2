"""What the panel says where it has no table to show; an empty table would look like "normal"."""

from __future__ import annotations

from napari_unibiomed.findings.model import FindingsModel

NO_RUN = (
    "<b>Findings appear here after a run.</b><br><br>"
    "<b>Report</b>: one click on a volume or a picture.<br>"
    "<b>Segment</b>: name what to look for.<br>"
    "<b>ROI</b>: draw a box and ask what it is."
)
WAITING = "Rows appear slice by slice."
CLEAR = "clear"
"""Address of the link that clears the filter."""


def state_text(model: FindingsModel, link_colour: str) -> str:
    """Why nothing is listed, as rich text; empty where there are rows to show.

    Args:
        link_colour: #RRGGBB that can be read on the background.
    """
    run = model.run
    if run is None:
        return NO_RUN
    if model.empty_state == "all filtered":
        return f'{model.counts_text}. <a href="{CLEAR}" style="color:{link_colour}">Clear filter</a>'
    if model.rows:
        return ""
    if not model.finished:
        return WAITING
    if run.job.kind == "ask":
        return "The answer is below. It names no region."
    done = len(run.slices_done)
    where = "" if run.volume.is_2d else f" in {done} slice{'s'[: done != 1]}"
    return f"No finding was produced{where}. This does not say that the image is normal."
