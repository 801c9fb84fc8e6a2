"""Models on the hub: what is known, what is here, and the one call that downloads. Nothing else opens a socket."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from unibiomed_core.errors import WeightsError

WANTED_FILES = ("*.safetensors", "*.safetensors.index.json", "config.json", "sam2.json", "tokenizer*.json",
                "special_tokens_map.json", "manifest.json")  # fmt: skip
"""Weights as safetensors and plain JSON; pickles and code are never fetched."""


@dataclass(frozen=True, slots=True)
class Published:
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


KNOWN: Mapping[str, Published] = MappingProxyType(
    {
        "unibiomed-1b": Published(
            "unibiomed-1b",
            "Luffy503/UniBiomed",
            "the published UniBiomed checkpoint (InternVL2.5-1B, SAM 2 hiera-large)",
            "about 4 GB",
            "see its repository; none was found stated",
        )
    }
)

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


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
        "'unibiomed models' lists what is here.",
    )


def cached(name: str, offline: bool = True) -> Path:
    """The folder of a model that was downloaded before. Opens no socket, whatever ``offline`` says.

    Raises:
        WeightsError: It was not downloaded.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    repository = hub_id(name)
    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError) as cause:
        raise WeightsError(
            "Weights not found",
            f"'{name}' was not downloaded to this machine" + (" and offline mode is on" if offline else ""),
            "a model that is here; nothing is downloaded unasked",
            f"Run 'unibiomed models download {name}', or name a folder.",
        ) from cause


def download(name: str, on_progress: Progress, *, offline: bool = False) -> Path:
    """Fetch a model; what is there already is kept, and a stopped download goes on where it was.

    Args:
        on_progress: Called when the size is known and after every file.

    Raises:
        WeightsError: Offline mode is on, the repository has no safetensors, or the connection failed.
    """
    repository = hub_id(name)
    if offline or os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        raise WeightsError(
            "Offline mode is on", f"'{name}' would have to be downloaded", "a connection that was asked for",
            "Switch offline mode off, or point --model at a folder.",
        )  # fmt: skip
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.utils import filter_repo_objects

    done, total = 0, 0
    try:
        info = HfApi().model_info(repository, files_metadata=True)
        sizes = {f.rfilename: f.size or 0 for f in info.siblings or []}
        wanted = sorted(filter_repo_objects(sizes, allow_patterns=list(WANTED_FILES)))
        if not any(file.endswith(".safetensors") for file in wanted):
            raise WeightsError(
                "Weights not found", f"{repository} has no safetensors", "safetensors; pickles are never opened"
            )
        total = sum(sizes[file] for file in wanted)
        on_progress(0, total)
        folder = Path()
        for file in wanted:
            folder = Path(hf_hub_download(repository, file, revision=info.sha)).parent
            done += sizes[file]
            on_progress(done, total)
        return folder
    except WeightsError:
        raise
    except Exception as cause:  # the client raises its own, the network library's and the system's errors
        share = f"at {100 * done // total} %" if total else "before it began"
        raise WeightsError(
            f"Download stopped {share}",
            f"{repository}: {str(cause).splitlines()[0][:200] if str(cause) else type(cause).__name__}",
            "a working connection",
            "Run the same command again to continue from there.",
        ) from cause
