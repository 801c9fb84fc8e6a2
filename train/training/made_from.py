"""What a run folder keeps was made from: written beside it, and compared before any of it is used again.

Records are made again where they would not be the same. Stages are not trained again by themselves, which may take
days: a run that would mix what they learnt from with other data, labels or another start is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unibiomed_core.errors import ConfigError, DataError, UniBiomedError, WriteError
from unibiomed_core.files import read_json, replaced_file

from ..config import RunConfig, Stage
from ..data.records import RECORDS_FORMAT
from ..datasets.settings import read_settings
from .checkpoint import MANIFEST, NAME

FILE = "made_from.json"

CHEAP_BYTES = 512 << 20
"""Up to so much data the content is compared, beyond it names, sizes and times of change."""

_SAMPLES, _BLOCK = 64, 1 << 20
"""Blocks of a larger file, evenly spaced, that stand for its content."""

Say = Callable[[str], None]
Inputs = dict[str, Any]

WORDS: Mapping[str, str] = {
    "data": "data",
    "records_format": "records of version",
    "record_side": "record_side",
    "modality": "modality",
    "labels": "labels",
    "records": "records",
    "limit_records": "limit_records",
    "validation_share": "validation_share",
    "seed": "seed",
    "preset": "preset",
    "vocabulary": "vocabulary",
    "init": "init",
    "tower": "tower",
    "adapters": "adapters",
    "earlier": "the stages before",
}
"""Input -> its name for people."""

_RECORD_INPUTS = ("data", "records_format", "record_side", "modality", "labels")
"""Inputs of records that a run makes for itself."""


def inputs_of(config: RunConfig, folder: Path) -> Inputs:
    """Everything that decides what a run learns besides the settings of its stages.

    Args:
        folder: The run's, which is no part of its data where it lies inside.

    Raises:
        ConfigError: The file of labels cannot be used.
    """
    ready = (Path(config.data) / "train.parquet").is_file()
    made: Inputs = {"data": content_of(Path(config.data) / "train.parquet" if ready else Path(config.data), folder)}
    if not ready:
        labels = read_settings([f"labels={config.labels}"])["labels"] if config.labels else {}
        made |= {
            "records_format": RECORDS_FORMAT,
            "record_side": config.record_side,
            "modality": config.modality,
            "labels": {name: list(values) for name, values in labels.items()},
        }
    names = ("limit_records", "validation_share", "seed", "adapters")
    made |= {name: getattr(config, name) for name in names}
    if config.init:
        return {**made, "init": _started_from(config.init)}
    made |= {"preset": config.preset, "vocabulary": config.vocabulary}
    # Frozen stages and statistics are in no checkpoint: another start would put others in their place.
    return {**made, "tower": config.tower} if config.tower else made


def content_of(source: Path, without: Path | None = None) -> dict[str, Any] | None:
    """How many files and bytes a folder or file has, and hashes of what is in them; None where it is not there.

    Args:
        without: A folder that is left out.

    Returns:
        ``files``, ``bytes``, ``names`` (hash of names and sizes), and ``content``; for a folder of more than
        ``CHEAP_BYTES`` ``times`` in place of the latter.
    """
    if not source.exists():
        return None
    found = sorted(_files(source, without.resolve() if without else None))
    total = sum(size for _, _, size, _ in found)
    if source.is_file():
        return {"files": 1, "bytes": total, "names": _hash(iter([str(total)])), "content": _file_hash(source)}
    names = _hash(f"{name}\0{size}" for name, _, size, _ in found)
    about: dict[str, Any] = {"files": len(found), "bytes": total, "names": names}
    if total > CHEAP_BYTES:
        return {**about, "times": _hash(f"{name}\0{time}" for name, _, _, time in found)}
    return {**about, "content": _hash(f"{name}\0{_file_hash(path)}" for name, path, _, _ in found)}


def _files(source: Path, without: Path | None) -> Iterator[tuple[str, Path, int, int]]:
    """(name, path, bytes, time of change) of each file but hidden ones, which hold no data."""
    if source.is_file():
        about = source.stat()
        yield source.name, source, about.st_size, about.st_mtime_ns
        return
    for place, folders, names in os.walk(source):
        here = Path(place)
        folders[:] = [f for f in folders if not f.startswith(".") and (here / f).resolve() != without]
        for name in names:
            if not name.startswith(".") and (here / name).is_file():
                about = (here / name).stat()
                yield (here / name).relative_to(source).as_posix(), here / name, about.st_size, about.st_mtime_ns


def _hash(lines: Iterator[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for line in lines:
        digest.update(f"{line}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _file_hash(path: Path) -> str:
    size, digest = path.stat().st_size, hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        if size <= CHEAP_BYTES:
            while block := file.read(_BLOCK):
                digest.update(block)
            return digest.hexdigest()
        for number in range(_SAMPLES):
            file.seek((size - _BLOCK) * number // (_SAMPLES - 1))
            digest.update(file.read(_BLOCK))
    return f"{size}-{digest.hexdigest()}"


def _started_from(init: str) -> dict[str, Any]:
    """What ``init`` names, and the weights that are there now."""
    from unibiomed_core.model.weights import resolve

    names = [init] if Path(init).is_dir() else [name.strip() for name in init.split(",")]
    hashes = [content_of(resolve(name)) for name in names]
    return {"name": init, "weights": [found and _same_data(found) for found in hashes]}


def _same_data(content: Mapping[str, Any]) -> str:
    """What of a content tells whether it is the same; times change by copying."""
    return str(content.get("content", content["names"]))


# ---- files ----------------------------------------------------------------------------------------------------------


def read(folder: Path, *needed: str) -> Inputs | None:
    """What stands beside something that a run keeps; None where an earlier version kept it."""
    try:
        found = read_json(folder / FILE, DataError)
    except DataError:
        return None
    return found if isinstance(found, dict) and all(name in found for name in needed) else None


def write(folder: Path, inputs: Mapping[str, Any]) -> None:
    """Whole or not at all.

    Raises:
        WriteError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replaced_file(folder / FILE) as aside:
            aside.write_text(json.dumps(inputs, indent=1), "utf-8")
    except OSError as cause:
        raise WriteError("Run folder cannot be written", f"{folder}: {cause}", "a folder with space") from cause


# ---- comparisons ----------------------------------------------------------------------------------------------------


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs, in words; a data folder that is gone is no difference, as what was made of it is kept."""
    told = []
    for name in [n for n in WORDS if n in before or n in now]:
        old, new = before.get(name), now.get(name)
        if old == new or (name == "data" and (new is None or (old and _same_data(old) == _same_data(new)))):
            continue
        told.append(f"{WORDS[name]} {_shown(name, old)}, now {_shown(name, new)}")
    return told


def _shown(name: str, value: Any) -> str:
    if value is None or value == "":
        return "none"
    if name in {"data", "records"}:
        return f"of {value['files']} files with {value['bytes']:,} bytes ({_same_data(value)[:8]})"
    if name == "init":
        return f"'{value['name']}' ({', '.join(str(w)[:8] for w in value['weights'])})"
    if name in {"labels", "earlier"}:
        return ", ".join(f"{k} {str(v)[:16]}" for k, v in value.items()) or "none"
    return f"'{value}'"[:40]


def kept_records(config: RunConfig, folder: Path, inputs: Mapping[str, Any], say: Say) -> bool:
    """Whether the records in ``folder``/records may be used: they are there and were made from ``inputs``.

    Args:
        say: Told why they are made anew.
    """
    trained, folder = _trained_stages(config, folder), folder / "records"
    if not (folder / "train.parquet").is_file():
        return False
    before = read(folder, *_RECORD_INPUTS)
    if before is None:
        say(f"{folder} does not say what its records were made from; they are made anew")
        return False
    wanted = {name: inputs[name] for name in _RECORD_INPUTS}
    told = differences(before, wanted)
    if not told and _touched(before["data"], wanted["data"]):
        if trained:  # other records under stages that learnt from these would be worse than old ones
            say(f"files of the data have another time of change; the records in {folder} are used as they are")
            return True
        told = ["times of change of the data"]
    if told:
        say(f"the records in {folder} were made from other inputs and are made anew: {'; '.join(told)}")
    return not told


def _touched(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> bool:
    return bool(before and now and before.get("times") != now.get("times"))


def records_made(folder: Path, inputs: Mapping[str, Any]) -> None:
    """Note what the records in ``folder`` were made from."""
    write(folder, {name: inputs[name] for name in _RECORD_INPUTS})


def check_stages(config: RunConfig, folder: Path, inputs: Mapping[str, Any], say: Say) -> None:
    """Refuse a run whose stages were trained from other inputs.

    Raises:
        ConfigError: Some were; the message says which, what differs, and what to do.
    """
    for name in _trained_stages(config, folder):
        before = read(folder / name, "inputs", "settings")
        if before is None:
            say(f"stage {name} is of an earlier version and does not say what it was trained from")
        elif told := differences({k: before["inputs"][k] for k in inputs if k in before["inputs"]}, inputs):
            raise _other_inputs(folder, name, told)


def _other_inputs(folder: Path, stage: str, told: list[str]) -> UniBiomedError:
    return ConfigError(
        "Run folder of other inputs",
        f"stage {stage} in {folder} was trained with {'; '.join(told)}",
        "the same inputs for all that a run folder keeps",
        f"Set another out=, go back to the inputs before, or move {folder} away to train anew.",
    )


def _trained_stages(config: RunConfig, folder: Path) -> list[str]:
    """Those that have a checkpoint."""
    return [s.name for s in config.stages if any(map(NAME.fullmatch, _names(folder / s.name)))]


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("step-*")]


def check_records(config: RunConfig, folder: Path, file: Path) -> None:
    """Refuse records that are not those a run's stages were trained from.

    Args:
        file: The records.

    Raises:
        ConfigError: They are others.
    """
    now = {"records": content_of(file)}
    for name in _trained_stages(config, folder):
        before = read(folder / name, "inputs", "settings")
        if before and (told := differences({"records": before["inputs"].get("records")}, now)):
            raise _other_inputs(folder, name, told)


def begin_stage(
    folder: Path, stage: Stage, before: Sequence[Stage], inputs: Mapping[str, Any], start: int, say: Say, writes: bool
) -> None:
    """Compare a stage with what its checkpoints were trained from, and note it where it begins or goes on.

    Args:
        folder: The run's.
        stage: With its steps resolved.
        before: The stages before it.
        inputs: Of :func:`inputs_of`, with the records' own hash.
        start: The step it goes on from; 0 where it begins.
        writes: Whether this process writes files.

    Raises:
        ConfigError: The checkpoints are of other records, or of stages before it that were trained anew since.
    """
    now = {**inputs, "earlier": _earlier(folder, before)}
    settings = asdict(stage)
    old = read(folder / stage.name, "inputs", "settings") if start else None
    if old is not None:
        if told := differences(old["inputs"], now):
            raise _other_inputs(folder, stage.name, told)
        changed = [
            f"{name} {old['settings'].get(name)}, now {value}"
            for name, value in settings.items()
            if old["settings"].get(name) != value
        ]
        if changed and start >= stage.steps:
            say(
                f"stage {stage.name} is finished and stays as it is, though its settings differ: {'; '.join(changed)}. "
                "Set another out= to train with these"
            )
            return
        if changed:
            say(f"stage {stage.name} goes on from step {start} with other settings: {'; '.join(changed)}")
    if writes and start < stage.steps:
        write(folder / stage.name, {"inputs": now, "settings": settings})


def _earlier(folder: Path, stages: Sequence[Stage]) -> dict[str, str]:
    """Stage -> hash of the newest manifest it has, which holds those of its weights."""
    found = {}
    for stage in stages:
        newest = max((p for p in (folder / stage.name).glob("step-*") if NAME.fullmatch(p.name)), default=None)
        if newest is not None and (newest / MANIFEST).is_file():
            with (newest / MANIFEST).open("rb") as file:
                found[stage.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def check_tokenizer(config: RunConfig, folder: Path, inputs: Mapping[str, Any], say: Say) -> None:
    """Remove a tokenizer that was trained from other inputs, where no stage has learnt with it; note the inputs."""
    if _trained_stages(config, folder):
        return
    tokenizer, before = folder / "tokenizer.json", read(folder)
    told = differences(before, inputs) if before is not None else ["of an earlier version"]
    if tokenizer.is_file() and told:
        say(f"the tokenizer in {folder} was trained from other inputs and is trained anew: {'; '.join(told)}")
        tokenizer.unlink()
    write(folder, inputs)
