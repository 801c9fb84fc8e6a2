"""Models on the hub: what is known, what is here, and the one call that downloads. Nothing else opens a socket."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from unibiomed_core.errors import UniBiomedError, WeightsError

if TYPE_CHECKING:
    from tqdm import tqdm

WANTED_FILES = (
    "*.safetensors", "*.safetensors.index.json", "config.json", "sam2.json", "manifest.json",
    "tokenizer*.json", "special_tokens_map.json", "vocab.json", "merges.txt", "added_tokens.json",
)  # fmt: skip
"""Weights as safetensors, plain JSON and merge rules; pickles and code are never fetched."""


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """A checkpoint that ``unibiomed models download`` knows by name.

    Args:
        hub_id: Repository on the hub.
        size: Roughly what is downloaded, for people.
        licence: As its repository states it.
    """

    name: str
    hub_id: str
    about: str
    size: str
    licence: str


KNOWN: Mapping[str, PublishedModel] = MappingProxyType(
    {
        "unibiomed-1b": PublishedModel(
            "unibiomed-1b",
            "Luffy503/UniBiomed",
            "the published UniBiomed checkpoint (InternVL2.5-1B, SAM 2 hiera-large)",
            "about 4 GB",
            "Apache-2.0, as its repository states",
        )
    }
)

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all, from the threads that download."""


def hub_id(name: str) -> str:
    """The repository of a known name; anything with a slash is taken as a repository.

    Raises:
        WeightsError: The name is neither.
    """
    if name in KNOWN:
        return KNOWN[name].hub_id
    if name.count("/") == 1 and not name.startswith((".", "/")):
        return name
    raise WeightsError(
        "Weights not found",
        f"'{name}' is no preset, folder, or model of the hub",
        f"'mini', {', '.join(KNOWN)}, a folder, or OWNER/NAME",
        command="'unibiomed models' lists what is here.",
        code="weights_not_found",
    )


def cached(name: str, offline: bool = True) -> Path:
    """The folder of a model that was downloaded before. Opens no socket, whatever ``offline`` says.

    Raises:
        WeightsError: It was not downloaded.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, IncompleteSnapshotError, LocalEntryNotFoundError

    repository = hub_id(name)
    try:
        return Path(snapshot_download(repository, local_files_only=True, allow_patterns=list(WANTED_FILES)))
    except IncompleteSnapshotError as cause:
        raise WeightsError(
            "Weights not found",
            f"the download of '{name}' was not finished",
            "all of its files",
            command=f"Run 'unibiomed models download {name}' again; files that arrived whole are kept.",
            code="download_unfinished",
        ) from cause
    except (LocalEntryNotFoundError, HFValidationError, OSError) as cause:
        raise WeightsError(
            "Weights not found",
            f"'{name}' was not downloaded to this machine" + (" and offline mode is on" if offline else ""),
            "a model that is here; nothing is downloaded unasked",
            command=f"Run 'unibiomed models download {name}', or name a folder.",
            code="weights_not_found",
            values={"offline": offline},
        ) from cause


def download(name: str, on_progress: Progress, *, offline: bool = False) -> Path:
    """Fetch a model; files that are there already are kept.

    A line that breaks is taken up again by the client where it broke. After it gave up, the next call begins the
    unfinished file anew: since version 1.31 huggingface_hub deletes it (its issue 4196).

    Args:
        on_progress: Called once the size is known, before anything is fetched, and then as bytes arrive. What it
            raises stops the download.

    Raises:
        WeightsError: Offline mode is on, there is no such repository or it has no safetensors, the connection failed
            or the disk is full.
    """
    repository = hub_id(name)
    if offline or os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        raise WeightsError(
            "Offline mode is on", f"'{name}' would have to be downloaded", "a connection that was asked for",
            command="Switch offline mode off, or point --model at a folder.", code="offline",
        )  # fmt: skip
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError
    from huggingface_hub.utils import filter_repo_objects

    done, total = 0, 0

    def report(arrived: int) -> None:
        nonlocal done
        done = min(max(done, arrived), total)
        on_progress(done, total)

    try:
        info = HfApi().model_info(repository, files_metadata=True)
        sizes = {f.rfilename: f.size or 0 for f in info.siblings or []}
        wanted = list(filter_repo_objects(sizes, allow_patterns=list(WANTED_FILES)))
        if not any(file.endswith(".safetensors") for file in wanted):
            raise WeightsError(
                "Weights not found", f"{repository} has no safetensors", "safetensors; pickles are never opened",
                code="no_safetensors",
            )  # fmt: skip
        total = sum(sizes[file] for file in wanted)
        report(0)
        folder = snapshot_download(repository, allow_patterns=list(WANTED_FILES), tqdm_class=_byte_counter(report))
        report(total)
        return Path(folder)
    except UniBiomedError:
        raise
    except RepositoryNotFoundError as cause:
        raise WeightsError(
            "Weights not found",
            f"the hub has no {repository}, or it is not open to everybody",
            "a public repository, or one that you are logged in for",
            code="weights_not_found",
        ) from cause
    except Exception as cause:  # the client raises its own, the network library's and the system's errors
        percent = 100 * done // total if total else None
        raise WeightsError(
            f"Download stopped {'before it began' if percent is None else f'at {percent} %'}",
            f"{repository}: {str(cause).splitlines()[0][:200] if str(cause) else type(cause).__name__}",
            "a working connection and space on the disk",
            "Run the same command again; files that arrived whole are kept.",
            code="download_stopped",
            values={"percent": percent},
        ) from cause


def _byte_counter(report: Callable[[int], None]) -> type[tqdm]:
    """A silent progress bar that tells ``report`` how many bytes have arrived; the client takes no plain callback."""
    from tqdm import tqdm

    class ByteCounter(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)  # the client's own bar class knows it, tqdm does not
            super().__init__(*args, **kwargs | {"file": io.StringIO(), "disable": False})

        def update(self, n: float | None = 1) -> bool | None:
            shown = super().update(n)
            if self.unit == "B":  # the client counts files with another bar
                report(int(self.n))
            return shown

    return ByteCounter
