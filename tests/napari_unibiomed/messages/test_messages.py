"""Every message in the very words that people read, and which error leads to which message."""

from __future__ import annotations

import re

import pytest

from napari_unibiomed.messages import catalogue, notices
from napari_unibiomed.messages.catalogue import clock, download_text, progress_text
from napari_unibiomed.messages.from_error import from_error
from napari_unibiomed.messages.message import ICONS, Link, Message
from unibiomed_core.errors import DeviceError, PromptError, ReadError, UniBiomedError, WeightsError

TABLE = [
    (
        catalogue.running_on_cpu(),
        "▲ Running on CPU. The installed PyTorch has no GPU support. "
        "Continue, or install the PyTorch build for your GPU and start napari again.",
    ),
    (
        catalogue.not_enough_gpu_memory(9, 6.2),
        "✕ Not enough GPU memory. Needed about 9 GB, 6.2 GB free. "
        "Try precision bf16, close other programs, or use CPU.",
    ),
    (
        catalogue.continued_with_less_memory("40–120"),
        "▲ Continued with less memory. Slices 40–120 ran in smaller batches; results can differ slightly.",
    ),
    (
        catalogue.weights_not_found(offline=True),
        "✕ Weights not found. Offline mode is on and the folder has no model files. "
        "Choose a folder or switch offline mode off.",
    ),
    (
        catalogue.weights_do_not_fit("Missing 3 files: a, b, c"),
        "✕ These weights do not fit this model. Missing 3 files: a, b, c. "
        "Download again or choose another folder.",
    ),
    (
        catalogue.download_stopped(41),
        "✕ Download stopped at 41 %. The connection closed. Press Download to continue; "
        "files that arrived whole are kept.",
    ),
    (
        catalogue.orientation_unknown(),
        "▲ Orientation unknown. The file has no direction matrix. Sides will be reported as \"unknown\". "
        "Continue, or open a file that has one.",
    ),
    (
        catalogue.tilted_acquisition(12.2),
        "● Tilted acquisition (12°). Shown on its own grid; measurements use true millimetres; "
        "saved masks keep the tilt.",
    ),
    (
        catalogue.uneven_spacing(7.5, 34, 35),
        "▲ Uneven slice spacing. Gap of 7.5 mm between slices 34 and 35. Volumes are approximate.",
    ),
    (
        catalogue.choose_one_volume(4),
        "✕ Choose one volume. This layer has 4 dimensions; pick a time point or channel.",
    ),
    (
        catalogue.not_hounsfield(0, 255),
        "▲ Values do not look like Hounsfield units. Range 0–255. Use percentile window instead?",
    ),
    (
        catalogue.no_mask_for("liver lesion", 12),
        "▲ No mask for “liver lesion”. The model answered without a region on the 12 slices tried. "
        "Its text is in the panel.",
    ),
    (
        catalogue.answer_truncated(),
        "▲ Answer truncated. The length limit was reached; the last sentence is dropped.",
    ),
    (
        catalogue.box_too_small(5, 3),
        "✕ Box too small. Draw at least 8 × 8 pixels; the current box is 5 × 3.",
    ),
    (
        catalogue.image_closed(),
        "▲ The image was closed. Finished slices are kept in the panel; masks can still be saved.",
    ),
    (
        catalogue.cancelled(36, 120),
        "▲ Cancelled after 36 of 120 slices. 36 slices are kept. Resume · Discard.",
    ),
    (
        catalogue.cannot_save_position(),
        "✕ Cannot save with correct position. This layer has no geometry from its file. Save as plain array?",
    ),
    (
        catalogue.something_went_wrong(ValueError("shapes differ\nmore")),
        "✕ Something went wrong. Shapes differ. Copy details.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("message", "text"), TABLE, ids=[message.title for message, _ in TABLE])
def test_the_words_of_every_case(message: Message, text: str) -> None:
    assert message.text == text


@pytest.mark.parametrize("message", [message for message, _ in TABLE], ids=lambda message: message.title)
def test_the_words_of_a_link_stand_in_its_message(message: Message) -> None:
    for link in message.links:
        assert link.value in message.action


def test_a_kind_is_told_by_icon_and_word() -> None:
    assert ICONS == {"info": ("●", "Ready"), "warning": ("▲", "Warning"), "error": ("✕", "Error")}
    assert (catalogue.no_image().icon, catalogue.no_image().word) == ("●", "Ready")
    assert catalogue.box_too_small(1, 1).word == "Error"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            DeviceError(
                "Out of memory", "GPU", code="out_of_memory",
                values={"device": "cuda", "free_bytes": 6349 << 20, "needed_bytes": 9216 << 20},
            ),
            catalogue.not_enough_gpu_memory(9, 6.2).text,
        ),
        (
            DeviceError(
                "Out of memory", "here", code="out_of_memory",
                values={"device": "cpu", "free_bytes": 1024 << 20, "needed_bytes": 2048 << 20},
            ),
            "✕ Not enough memory. Needed about 2 GB, 1 GB free. Close other programs or take a smaller model.",
        ),
        (
            WeightsError("Weights not found", "'x'", "y", code="weights_not_found", values={"offline": True}),
            catalogue.weights_not_found(offline=True).text,
        ),
        (
            WeightsError("Weights not found", "there is no folder 'offline'", "y", code="weights_not_found"),
            "✕ Weights not found. The folder has no model files. Choose a folder or press Download.",
        ),
        (
            WeightsError("Weights damaged", "the checksum of model.safetensors differs", "y"),
            catalogue.weights_do_not_fit("the checksum of model.safetensors differs").text,
        ),
        (
            WeightsError("These weights do not fit this model", "3 tensors are missing", "y"),
            catalogue.weights_do_not_fit("3 tensors are missing").text,
        ),
        (
            WeightsError("Download stopped", "toy: reset", "y", code="download_stopped", values={"percent": 41}),
            catalogue.download_stopped(41).text,
        ),
        (
            WeightsError("Download stopped", "toy: refused", "y", code="download_stopped", values={"percent": None}),
            "✕ Download stopped before it began. The connection closed. Press Download to continue; "
            "files that arrived whole are kept.",
        ),
        (
            WeightsError("Weights not found", "the download of 'x' was not finished", code="download_unfinished"),
            catalogue.download_stopped(None, "An earlier download was not finished.").text,
        ),
        (
            WeightsError("Weights not found", "toy has no safetensors", "safetensors", code="no_safetensors"),
            "✕ Weights not found. Toy has no safetensors. Expected: Safetensors.",
        ),
        (
            PromptError("Box", "small", code="box_too_small", values={"width_px": 5, "height_px": 3}),
            catalogue.box_too_small(5, 3).text,
        ),
        (
            PromptError("Target not learnt", "the model 'mini' was not trained on 'foot'", "liver or spleen", "Choose"),
            "✕ Target not learnt. The model 'mini' was not trained on 'foot'. Expected: Liver or spleen. Choose.",
        ),
        (RuntimeError(), "✕ Something went wrong. RuntimeError. Copy details."),
    ],
)  # fmt: skip
def test_an_error_becomes_its_message(error: Exception, text: str) -> None:
    assert from_error(error).text == text


def test_an_error_of_the_reader_keeps_its_title() -> None:
    message = from_error(ReadError("Choose one volume", "this layer has 4 dimensions", "3"))
    assert message.title == "Choose one volume"
    assert message.kind == "error"


def test_details_hold_the_traceback_of_a_fault_of_ours() -> None:
    try:
        {}["missing"]
    except KeyError as error:
        message = from_error(error)
    assert "Traceback" in message.details
    assert "test_messages.py" in message.details
    assert message.links == (Link.COPY_DETAILS,)
    assert not isinstance(KeyError(), UniBiomedError)


def test_an_end_is_said_in_numbers_and_an_empty_one_in_words() -> None:
    assert notices.finished(12, 0, 0, 96, 221).text == "● 12 abnormal findings in 96 slices, 3:41."
    assert notices.finished(1, 0, 2, 1, 1).text == "● 1 abnormal finding, 2 structures measured in 1 slice, 0:01."
    assert notices.finished(0, 0, 1, 1, 1).text == (
        "● 1 structure measured in 1 slice, 0:01. No abnormal finding. This does not say that the image is normal."
    )
    assert notices.finished(0, 1, 0, 3, 1).text == "● 1 unsure finding in 3 slices, 0:01."
    assert notices.finished(0, 0, 1, 1, 1, report=False).text == "● 1 structure measured in 1 slice, 0:01."
    assert notices.finished(0, 0, 0, 96, 221).text == (
        "● No finding was produced in 96 slices. This does not say that the image is normal."
    )


def test_progress_is_the_slice_in_work() -> None:
    assert progress_text(36, 120, 70, 160) == "36 of 120 slices · 1:10 gone · about 2:40 left"
    assert progress_text(0, 120, 0, None) == "0 of 120 slices · 0:00 gone"
    assert progress_text(120, 120, 231, 0).startswith("120 of 120 slices")


def test_time_and_bytes() -> None:
    assert [clock(s) for s in (0, 59.4, 59.6, 3599, 3600, -1)] == ["0:00", "0:59", "1:00", "59:59", "1:00:00", "0:00"]
    assert download_text(412_000_000, 4_012_000_000, 50) == "412 of 4,012 MB · 8.2 MB/s"
    assert download_text(0, 4_000_000_000, 0) == "0 of 4,000 MB"


def test_no_message_tells_to_use_the_command_line() -> None:
    """Hints of the core are for its command line; the dock has buttons."""
    error = DeviceError("Device not available", "'cuda:3'", "cpu", command="'unibiomed info' shows more.")
    assert str(error).endswith("'unibiomed info' shows more.")
    assert not re.search(r"unibiomed |--", from_error(error).text)
