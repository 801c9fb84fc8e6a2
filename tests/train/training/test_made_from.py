"""A run folder that is used again with other inputs: what it kept is compared, and told, made anew or refused."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.datasets.tiny_layouts_folders import disc, picture, save_picture
from tests.train.toy_runs import records_of_every_role, toy_engine
from train.config import RunConfig, Stage, override
from train.data import records as record_files
from train.recipes import toy
from train.run import run
from train.run_records import trained_records, training_records
from train.training import made_from
from train.training.checkpoint import Checkpoints
from unibiomed_core.errors import ConfigError
from unibiomed_core.model.weights import save

QUICK = ["only=grounding", "grounding.steps=2", "grounding.batch_size=1", "grounding.side=32", "validation_share=0",
         "record_side=32", "threads=1", "save_every=1"]  # fmt: skip


def data_folder(folder: Path, count: int = 6) -> Path:
    """Pictures with masks in train/ and test/, and a table of labels beside the folder."""
    for number in range(count):
        part = folder / "data" / ("test" if number == 0 else "train")
        save_picture(part / "images" / f"p{number}.png", picture(number))
        save_picture(part / "masks" / f"p{number}.png", disc().astype(np.uint8))
    (folder / "labels.json").write_text('{"nerve": [1]}')
    return folder


def settings(folder: Path, *more: str) -> list[str]:
    return [f"data={folder / 'data'}", f"labels={folder / 'labels.json'}", "modality=ultrasound",
            f"out={folder / 'run'}", *QUICK, *more]  # fmt: skip


def config_of(folder: Path, *more: str) -> RunConfig:
    return override(toy(), settings(folder, *more))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a run of two steps."""
    torch.set_num_threads(1)
    folder = data_folder(tmp_path_factory.mktemp("finished"))
    run("toy", settings(folder))
    return folder


def newest(folder: Path) -> bytes:
    found = Checkpoints(folder / "run" / "grounding").newest()
    assert found is not None
    return (found / "manifest.json").read_bytes()


# ---- a run -----------------------------------------------------------------------------------------------------------


def test_the_same_inputs_go_on(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, records = newest(finished), (finished / "run" / "records" / "train.parquet").stat().st_mtime_ns
    run("toy", settings(finished))
    assert newest(finished) == before
    assert (finished / "run" / "records" / "train.parquet").stat().st_mtime_ns == records
    said = capsys.readouterr().out
    assert "anew" not in said
    assert "differ" not in said


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("modality=endoscopy", "modality 'ultrasound', now 'endoscopy'"),
        ("record_side=48", "record_side '32', now '48'"),
        ("limit_records=3", "limit_records '24', now '3'"),
        ("validation_share=0.5", "validation_share '0.0', now '0.5'"),
        ("seed=7", "seed '20261124', now '7'"),
        ("preset=mini", "preset 'toy', now 'mini'"),
        ("vocabulary=600", "vocabulary '512', now '600'"),
        ("adapters=2", "adapters '0', now '2'"),
    ],
)
def test_another_setting_of_the_inputs_is_refused_before_anything_is_changed(
    finished: Path, setting: str, told: str
) -> None:
    before = {p: p.read_bytes() for p in (finished / "run").rglob("*") if p.is_file()}
    with pytest.raises(ConfigError, match=f"stage grounding .* was trained with {told}.*Set another out="):
        run("toy", settings(finished, setting))
    assert {p: p.read_bytes() for p in (finished / "run").rglob("*") if p.is_file()} == before


def test_another_start_is_refused(finished: Path, tmp_path: Path) -> None:
    engine = toy_engine()
    save(engine.model, engine.processor, tmp_path / "model", dtype="float32")
    with pytest.raises(ConfigError, match=r"stage grounding .* was trained with init none, now '.*model'"):
        run("toy", settings(finished, f"init={tmp_path / 'model'}"))


def test_other_labels_in_the_same_file_are_refused(finished: Path) -> None:
    """As when a lab corrects its table and starts finetune again."""
    labels = finished / "labels.json"
    before = labels.read_text()
    try:
        labels.write_text('{"nerve": [1], "blood vessel": [2]}')
        with pytest.raises(ConfigError, match=r"labels nerve \[1\], now nerve \[1\], blood vessel \[2\]"):
            run("toy", settings(finished))
        labels.write_text('{ "nerve": 1 }')  # the same in other words
        run("toy", settings(finished))
    finally:
        labels.write_text(before)


def test_an_added_or_changed_picture_is_refused_and_a_copy_of_the_data_is_not(finished: Path) -> None:
    import shutil

    added = finished / "data" / "train" / "images" / "p9.png"
    try:
        save_picture(added, picture(9))
        with pytest.raises(ConfigError, match=r"data of 12 files .*, now of 13 files"):
            run("toy", settings(finished))
    finally:
        added.unlink()
    changed = finished / "data" / "train" / "masks" / "p2.png"
    content = changed.read_bytes()
    try:
        save_picture(changed, disc(10, 10).astype(np.uint8))
        with pytest.raises(ConfigError, match=r"was trained with data of 12 files"):
            run("toy", settings(finished))
    finally:
        changed.write_bytes(content)
    copy = finished / "elsewhere"
    shutil.copytree(finished / "data", copy)
    os.utime(copy / "train" / "images" / "p1.png", (1, 1))
    run("toy", settings(finished, f"data={copy}"))
    shutil.rmtree(copy)


def test_a_run_goes_on_without_its_data_folder(finished: Path) -> None:
    """On another machine there are the records alone."""
    (finished / "data").rename(finished / "away")
    try:
        run("toy", settings(finished))
    finally:
        (finished / "away").rename(finished / "data")


def test_other_settings_of_a_finished_stage_are_told(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = newest(finished)
    run("toy", settings(finished, "grounding.learning_rate=0.5"))
    said = capsys.readouterr().out
    assert "stage grounding is finished and stays as it is" in said
    assert "learning_rate 0.001, now 0.5" in said
    assert newest(finished) == before


# ---- what a run folder keeps -----------------------------------------------------------------------------------------


def test_records_are_made_anew_where_nothing_was_trained_from_them(tmp_path: Path) -> None:
    data_folder(tmp_path)
    said: list[str] = []
    config = config_of(tmp_path)
    assert len(training_records(config, tmp_path / "run", said.append)) == 5
    said.clear()
    assert len(training_records(config, tmp_path / "run", said.append)) == 5
    assert not said
    for name, values in (("images", picture(9)), ("masks", disc().astype(np.uint8))):
        save_picture(tmp_path / "data" / "train" / name / "p9.png", values)
    assert len(training_records(config, tmp_path / "run", said.append)) == 6
    assert "made anew: data of 12 files" in said[0]
    said.clear()
    found = training_records(replace(config, record_side=48), tmp_path / "run", said.append)
    assert found[0].stored_size == (48, 48)
    assert "record_side '32', now '48'" in said[0]


def test_records_of_another_version_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_folder(tmp_path)
    said: list[str] = []
    training_records(config_of(tmp_path), tmp_path / "run", said.append)
    monkeypatch.setattr(made_from, "RECORDS_FORMAT", made_from.RECORDS_FORMAT + 1)
    said.clear()
    training_records(config_of(tmp_path), tmp_path / "run", said.append)
    assert "records of version" in said[0]
    (tmp_path / "run" / "records" / made_from.FILE).write_text("torn")
    said.clear()
    training_records(config_of(tmp_path), tmp_path / "run", said.append)
    assert "does not say what its records were made from" in said[0]


def test_a_setting_that_records_leave_without_effect_is_told(tmp_path: Path) -> None:
    records_of_every_role(tmp_path / "data")
    data_folder(tmp_path / "labels")
    said: list[str] = []
    words = [f"data={tmp_path / 'data'}", "modality=ct"]
    training_records(override(toy(), words), tmp_path / "run", said.append)
    assert said == [f"without effect, as {tmp_path / 'data'} holds records: modality=ct"]


def test_a_changed_file_of_records_is_read_anew(tmp_path: Path) -> None:
    """What the library keeps of a file beside it is of that file, not of one that stood there before."""
    first = records_of_every_role(tmp_path)
    record_files.save(list(first)[:3], tmp_path / "train.parquet")
    assert [r.id for r in record_files.load(tmp_path / "train.parquet")] == [r.id for r in first][:3]


def test_a_tokenizer_of_other_texts_is_trained_anew(tmp_path: Path) -> None:
    config, said = toy(), list[str]()
    (tmp_path / "tokenizer.json").write_text("{}")
    made_from.check_tokenizer(config, tmp_path, {"vocabulary": 512}, said.append)
    assert not (tmp_path / "tokenizer.json").exists(), "nothing says what it was made from"
    (tmp_path / "tokenizer.json").write_text("{}")
    made_from.check_tokenizer(config, tmp_path, {"vocabulary": 512}, said.append)
    assert (tmp_path / "tokenizer.json").exists()
    made_from.check_tokenizer(config, tmp_path, {"vocabulary": 600}, said.append)
    assert not (tmp_path / "tokenizer.json").exists()
    assert "vocabulary '512', now '600'" in said[-1]


# ---- stages ----------------------------------------------------------------------------------------------------------

A, B = (Stage(name, "joint", steps=4, batch_size=1, learning_rate=1e-3) for name in "ab")
CONFIG = replace(toy(), stages=(A, B))


def trained(folder: Path, stage: Stage, content: str = "x") -> None:
    (folder / stage.name / "step-00000002").mkdir(parents=True, exist_ok=True)
    (folder / stage.name / "step-00000002" / "manifest.json").write_text(content)


def test_a_stage_that_goes_on_with_other_settings_says_which(tmp_path: Path) -> None:
    """A learning rate may be lowered in the middle of a stage, as the message on a loss that is not finite advises."""
    said: list[str] = []
    made_from.begin_stage(tmp_path, A, [], {"seed": 1}, 0, said.append, True)
    trained(tmp_path, A)
    made_from.begin_stage(tmp_path, A, [], {"seed": 1}, 2, said.append, True)
    assert not said
    made_from.begin_stage(tmp_path, replace(A, learning_rate=1e-4), [], {"seed": 1}, 2, said.append, True)
    assert said == ["stage a goes on from step 2 with other settings: learning_rate 0.001, now 0.0001"]


def test_a_stage_on_top_of_one_that_was_trained_anew_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, A)
    made_from.begin_stage(tmp_path, B, [A], {}, 0, print, True)
    trained(tmp_path, B)
    made_from.begin_stage(tmp_path, B, [A], {}, 2, print, True)
    trained(tmp_path, A, "others")
    with pytest.raises(ConfigError, match=r"stage b .* the stages before a"):
        made_from.begin_stage(tmp_path, B, [A], {}, 2, print, True)


def test_a_stage_on_other_records_is_refused_and_one_of_an_earlier_version_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    records_of_every_role(tmp_path)
    file = tmp_path / "train.parquet"
    inputs = {"records": made_from.content_of(file)}
    trained(tmp_path, A)
    made_from.check_stages(CONFIG, tmp_path, inputs, said.append)
    assert said == ["stage a is of an earlier version and does not say what it was trained from"]
    made_from.write(tmp_path / "a", {"inputs": inputs, "settings": {}})
    made_from.check_records(CONFIG, tmp_path, file)
    record_files.save(list(record_files.load(file))[:2], file)
    with pytest.raises(ConfigError, match=r"stage a .* was trained with records of 1 files with [\d,]+ bytes"):
        made_from.check_records(CONFIG, tmp_path, file)


def test_an_export_uses_the_records_that_were_trained_from(finished: Path) -> None:
    config, said = config_of(finished), list[str]()
    added = finished / "data" / "train" / "images" / "p9.png"
    try:
        save_picture(added, picture(9))
        assert len(trained_records(config, finished / "run", said.append)) == 5
    finally:
        added.unlink()
    assert not said


# ---- contents --------------------------------------------------------------------------------------------------------


def test_contents_follow_from_names_sizes_and_bytes(tmp_path: Path) -> None:
    folder = data_folder(tmp_path) / "data"
    before = made_from.content_of(folder)
    assert before is not None
    assert before["files"] == 12
    os.utime(folder / "train" / "images" / "p1.png", (1, 1))
    (folder / ".DS_Store").write_text("hidden")
    (folder / "run").mkdir()
    (folder / "run" / "log.txt").write_text("a run folder inside its data")
    assert made_from.content_of(folder, folder / "run") == before
    (folder / "train" / "images" / "p1.png").rename(folder / "train" / "images" / "p8.png")
    assert made_from.content_of(folder, folder / "run") != before
    assert made_from.content_of(folder / "nowhere") is None


def test_of_much_data_the_times_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other times alone make records anew, and never records under stages that were trained from those before."""
    monkeypatch.setattr(made_from, "CHEAP_BYTES", 100)
    data_folder(tmp_path)
    config, said = config_of(tmp_path), list[str]()
    training_records(config, tmp_path / "run", said.append)
    os.utime(tmp_path / "data" / "train" / "images" / "p1.png", (1, 1))
    said.clear()
    training_records(config, tmp_path / "run", said.append)
    assert "made anew: times of change of the data" in said[0]
    trained(tmp_path / "run", replace(A, name="grounding"))
    os.utime(tmp_path / "data" / "train" / "images" / "p1.png", (2, 2))
    said.clear()
    training_records(config, tmp_path / "run", said.append)
    assert [line for line in said if "are used as they are" in line] == said


def test_a_large_file_is_known_by_its_size_and_by_blocks_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made_from, "CHEAP_BYTES", 100)
    monkeypatch.setattr(made_from, "_BLOCK", 16)
    file = tmp_path / "train.parquet"
    file.write_bytes(bytes(2000))
    before = made_from.content_of(file)
    assert made_from.content_of(file) == before
    for content in (bytes(1999) + b"x", b"x" + bytes(1999), bytes(2001)):
        file.write_bytes(content)
        assert made_from.content_of(file) != before


def test_weights_that_were_replaced_are_another_start(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"one")
    config = override(toy(), [f"init={tmp_path / 'model'}", f"data={tmp_path / 'none'}"])
    before = made_from.inputs_of(config, tmp_path)
    assert json.loads(json.dumps(before)) == before, "what is written has to come back as it was"
    (tmp_path / "model" / "model.safetensors").write_bytes(b"two")
    assert made_from.differences(before, made_from.inputs_of(config, tmp_path))


def test_not_all_patients_are_held_out(tmp_path: Path) -> None:
    """bugs small-sets: with two patients a share may take both, and nothing would be left to train on."""
    found = records_of_every_role(tmp_path)
    assert found.held_out(0.5).any()
    assert not found.held_out(1.0).any()
