"""Checkpoints: what comes back, what is kept, what is refused, and what a death at each file operation leaves."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from train.training import checkpoint
from train.training.checkpoint import (
    Checkpoints,
    load,
    optimiser_tensors,
    random_state,
    restore_optimiser,
    restore_random,
    restore_weights,
)
from unibiomed_core.errors import ConfigError, DataError, WriteError


def filled(step: int, size: int = 4) -> dict[str, Tensor]:
    return {"w": torch.full((size,), float(step)), "step": torch.tensor(step)}


def save(checkpoints: Checkpoints, step: int, score: float | None = None) -> Path:
    return checkpoints.save(step, filled(step), filled(-step), {"epoch": step // 2}, score)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "a" / "checkpoints")
    assert checkpoints.newest() is None
    assert checkpoints.best() is None
    tied = torch.arange(6.0)
    weights = {"a": tied, "tied": tied, "turned": tied.view(2, 3).T, "half": tied.to(torch.bfloat16)}
    path = checkpoints.save(7, weights, {}, {"order": [3, 1], "name": "é"}, 0.5)
    assert checkpoints.newest() == checkpoints.best() == path
    found = load(path)
    assert (found.step, found.score, found.state) == (7, 0.5, {"order": [3, 1], "name": "é"})
    assert found.optimiser == {}
    assert found.weights.keys() == weights.keys()
    for name, value in weights.items():
        assert found.weights[name].dtype == value.dtype
        assert torch.equal(found.weights[name], value)


def test_last_ones_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step, score in ((1, 0.2), (2, 0.9), (3, None), (4, 0.9), (5, 0.3), (6, None)):
        save(checkpoints, step, score)
    assert names(tmp_path) == ["step-00000002", "step-00000005", "step-00000006"]
    assert checkpoints.best() == tmp_path / "step-00000002"
    assert checkpoints.newest() == tmp_path / "step-00000006"
    with pytest.raises(DataError, match="not finite"):
        save(checkpoints, 7, float("nan"))
    with pytest.raises(ConfigError, match="keep is 0"):
        Checkpoints(tmp_path, keep=0)


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    save(checkpoints, 99_999_999)
    save(checkpoints, 100_000_000)
    assert names(tmp_path) == ["step-100000000"]


def test_the_same_step_again_takes_its_place(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 3)
    checkpoints.save(3, filled(30), {}, {})
    assert names(tmp_path) == ["step-00000003"]
    assert torch.equal(load(tmp_path / "step-00000003").weights["w"], filled(30)["w"])


def damage_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_a_damaged_newest_is_told_and_the_one_before_used(tmp_path: Path) -> None:
    said: list[str] = []
    checkpoints = Checkpoints(tmp_path, say=said.append)
    first, second = save(checkpoints, 1, 0.1), save(checkpoints, 2, 0.2)
    assert checkpoints.newest() == second
    assert not said
    damage_a_byte(second / checkpoint.OPTIMISER)
    assert checkpoints.newest() == checkpoints.best() == first
    assert said == ["checkpoint step-00000002 is damaged (optimiser.safetensors differs); the one before is tried"] * 2
    (first / checkpoint.MANIFEST).write_text("{}", "utf-8")
    with pytest.raises(DataError, match="every one damaged"):
        checkpoints.newest()


@pytest.mark.parametrize("name", [checkpoint.WEIGHTS, checkpoint.RANDOM, checkpoint.STATE, checkpoint.MANIFEST])
def test_a_missing_or_cut_file_is_damage(tmp_path: Path, name: str) -> None:
    checkpoints = Checkpoints(tmp_path, say=lambda line: None)
    first, second, third = (Checkpoints(tmp_path, keep=3).save(s, filled(s), {}, {}) for s in (1, 2, 3))
    os.truncate(second / name, (second / name).stat().st_size - 1)
    (third / name).unlink()
    assert checkpoints.newest() == first


def test_another_format_is_refused(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 2)
        path = save(checkpoints, 1)
    for read in (checkpoints.newest, lambda: load(path)):
        with pytest.raises(DataError, match=r"format 2\. Expected: format 1"):
            read()


class Killed(BaseException):
    """Stands for the end of the process: no handler of the code under test may see it."""


@contextmanager
def death_at(operation: int) -> Iterator[list[int]]:
    """The process "dies" before the n-th sync, rename or removal; the list tells how many there were."""
    done = [0]

    def dying(original: object) -> object:
        def call(*arguments: object, **more: object) -> object:
            done[0] += 1
            if done[0] == operation:
                raise Killed
            return original(*arguments, **more)  # type: ignore[operator]

        return call

    with pytest.MonkeyPatch.context() as patch:
        for holder, name in (
            (os, "fsync"), (Path, "rename"), (os, "rmdir"), (os, "unlink"), (checkpoint, "save_file"),
            (Path, "write_text"),
        ):  # fmt: skip
            patch.setattr(holder, name, dying(getattr(holder, name)))
        yield done


@pytest.mark.parametrize("again", [False, True], ids=["next step", "same step"])
def test_death_at_each_operation_leaves_a_whole_one(tmp_path: Path, again: bool) -> None:
    """Old state or new state, nothing else, and a later save cleans up."""
    step, operation, deaths = 2 if again else 3, 0, 0
    while True:
        operation += 1
        folder = tmp_path / str(operation)
        checkpoints = Checkpoints(folder, keep=1, say=pytest.fail)
        save(checkpoints, 1, 0.9)
        save(checkpoints, 2)
        try:
            with death_at(operation):
                checkpoints.save(step, filled(9), {}, {})
            break
        except Killed:
            deaths += 1
        newest, best = checkpoints.newest(), checkpoints.best()
        assert newest is not None
        assert best is not None
        assert load(newest).weights["w"][0] in (2, 9)
        assert torch.equal(load(best).weights["w"], filled(1)["w"])
        for path in folder.glob("step-*"):
            if checkpoint.NAME.fullmatch(path.name):
                assert load(path).step == int(path.name[5:13])
        save(checkpoints, 4)
        assert names(folder) == ["step-00000001", "step-00000004"]
    assert deaths > 15  # 4 tensors and state files, their syncs, renames and removals


@contextmanager
def small_disk(limit_bytes: int) -> Iterator[None]:
    """Writing a file beyond the limit fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_an_error_and_the_last_one_stays(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    with small_disk(200_000), pytest.raises(WriteError, match=r"step-00000002.*last checkpoint is kept"):
        checkpoints.save(2, filled(2), {"large": torch.zeros(100_000)}, {})
    assert names(tmp_path) == ["step-00000001"]
    assert checkpoints.newest() == tmp_path / "step-00000001"


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", "utf-8")
    with pytest.raises(WriteError, match="file"):
        save(Checkpoints(tmp_path / "file" / "checkpoints"), 1)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))


def train(module: nn.Module, optimiser: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimiser.param_groups[0]["lr"] = 0.1 / (step + 1)
        picture = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        module(picture).square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()


def test_resumed_training_is_bit_equal_with_dropout(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = network()
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.1)
    train(module, optimiser, range(4))
    path = Checkpoints(tmp_path).save(4, module.state_dict(), optimiser_tensors(optimiser), {})
    train(module, optimiser, range(4, 8))

    other = network()  # draws from the global generator, as a new process would
    others = torch.optim.AdamW(other.parameters(), lr=0.1)
    found = load(path)
    restore_weights(other, found.weights)
    restore_optimiser(others, found.optimiser)
    restore_random(found.random)
    train(other, others, range(4, 8))
    for name, value in module.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_random_state_is_that_of_the_save() -> None:
    state = random_state()
    first = torch.rand(3)
    assert not torch.equal(torch.rand(3), first)
    restore_random(state)
    assert torch.equal(torch.rand(3), first)


def test_weights_that_do_not_fit_change_nothing() -> None:
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    whole = {name: value + 1 for name, value in before.items()}
    for wrong, why in (
        ({k: v for k, v in whole.items() if k != "2.bias"}, "2.bias is missing"),
        ({**whole, "3.bias": torch.zeros(2)}, "3.bias is unknown"),
        ({**whole, "2.bias": torch.zeros(7)}, r"2.bias has \(7,\), the model \(2,\)"),
    ):
        with pytest.raises(DataError, match=why):
            restore_weights(module, wrong)
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    module[2].requires_grad_(False)  # type: ignore[index]
    restore_weights(module, {name: value for name, value in whole.items() if name.startswith("0.")})
    assert torch.equal(module.state_dict()["0.bias"], whole["0.bias"])
    assert torch.equal(module.state_dict()["2.bias"], before["2.bias"])


def test_optimiser_state_that_does_not_fit_is_refused() -> None:
    module = network()
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.1)
    train(module, optimiser, range(1))
    state = optimiser_tensors(optimiser)
    assert json.dumps(sorted(state)[:3]) == '["0.exp_avg", "0.exp_avg_sq", "0.step"]'
    with pytest.raises(DataError, match="parameter 9, there are 4"):
        restore_optimiser(optimiser, {**state, "9.step": torch.tensor(1.0)})
    with pytest.raises(DataError, match="exp_avg of parameter 1"):
        restore_optimiser(optimiser, {**state, "1.exp_avg": torch.zeros(9)})
    optimiser.param_groups[0]["lr"] = 0.7
    restore_optimiser(optimiser, state)
    assert optimiser.param_groups[0]["lr"] == 0.7
