"""What people write for a target: synonyms, plurals, unknown ones, named while the known ones are run (ux 8)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unibiomed_core.cli.cli_kit import answer, call, images, picky_folder, refused, succeeded
from unibiomed_core.phrases import Unknown, lookup

__all__ = ["images", "picky_folder"]

LEARNT = {"ct": ("soft-tissue sarcoma", "lung tumour", "liver", "left kidney", "right kidney")}


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Liver", "liver"),
        ("hepar", "liver"),
        ("livers", "liver"),
        ("soft tissue sarcoma", "soft-tissue sarcoma"),
        ("Sarcomas", "soft-tissue sarcoma"),
        ("lung tumors", "lung tumour"),
        ("liver in abdomen CT", "liver"),
    ],
)
def test_spellings_synonyms_and_plurals_are_understood(written: str, name: str) -> None:
    given = lookup(written, "ct", LEARNT)
    assert not isinstance(given, Unknown)
    assert given[0] == name


@pytest.mark.parametrize(
    ("written", "code", "near"),
    [
        ("livr", "not_in_vocabulary", ("liver",)),
        ("kidney", "not_learnt", ("left kidney", "right kidney")),
        ("spleen", "not_learnt", ()),
        ("femur", "not_in_vocabulary", ()),
    ],
)
def test_an_unknown_phrase_comes_with_what_looks_like_it(written: str, code: str, near: tuple[str, ...]) -> None:
    given = lookup(written, "ct", LEARNT)
    assert isinstance(given, Unknown)
    assert (given.name, given.code) == (written, code)
    assert given.nearest[: len(near)] == near
    assert set(given.nearest) <= set(LEARNT["ct"]), "only what can be asked for is offered"


def test_a_model_without_a_list_takes_any_words() -> None:
    assert lookup(" green spot ", "ct", {}) == ("green spot", "green spot")


@pytest.mark.parametrize("where", [[], ["--slice", 1]])
def test_segment_runs_what_is_known_and_names_the_rest(
    images: Path, picky_folder: str, tmp_path: Path, where: list[object]
) -> None:
    result = call(
        "segment", images / "ct.nii.gz", "femur", "hepar", "splen", *where, "--model", picky_folder, "--out", tmp_path
    )
    assert result.exit_code == 3, result.output
    assert "“femur”" in result.stderr
    assert "“splen” (nearest: spleen)" in result.stderr
    given = answer(tmp_path)
    assert [phrase["target"] if "target" in phrase else phrase["text"] for phrase in given["phrases"]] == ["liver"]
    assert [one["name"] for one in given["unknown_targets"]] == ["femur", "splen"]
    assert given["unknown_targets"][1]["nearest"] == ["spleen"]
    assert any("femur" in warning for warning in given["warnings"])


def test_a_report_runs_what_is_known_and_names_the_rest(images: Path, picky_folder: str, tmp_path: Path) -> None:
    result = call(
        "report", images / "ct.nii.gz", "--targets", "femur,liver", "--model", picky_folder, "--out", tmp_path
    )
    assert result.exit_code == 3, result.output
    assert "Not looked for, as the model has no such target here: “femur”." in result.stdout
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "femur" in page
    assert "not_in_vocabulary" not in page, "codes are for machines"


def test_where_nothing_is_known_all_are_named_and_nothing_is_written(
    images: Path, picky_folder: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = call("segment", images / "ct.nii.gz", "femur", "tibia", "--model", picky_folder, "--out", out)
    refused(result, "Unknown target", "'femur', 'tibia' are not in the vocabulary", "one of its targets: liver, spleen")
    assert not out.exists()


def test_known_targets_alone_end_well(images: Path, picky_folder: str, tmp_path: Path) -> None:
    succeeded(call("segment", images / "ct.nii.gz", "livers", "--model", picky_folder, "--out", tmp_path))
    assert answer(tmp_path)["unknown_targets"] == []
