"""Where targets are shown: the parts of the body of ``vocabulary.json``."""

from __future__ import annotations

import pytest

from unibiomed_core import vocabulary


def test_every_target_says_where_it_is_shown_in_known_words() -> None:
    for target in vocabulary.targets().values():
        assert target.parts, target.name
        assert set(target.parts) <= set(vocabulary.PARTS), target.name
        assert len(set(target.parts)) == len(target.parts), target.name
    shown = {part for target in vocabulary.targets().values() for part in target.parts}
    assert shown == set(vocabulary.PARTS), "a part that shows nothing could never be told"


@pytest.mark.parametrize(
    ("name", "own", "others"),
    [
        ("aorta", "abdomen", {"chest", "heart"}),
        ("spinal cord", "spine", {"neck", "chest", "abdomen"}),
        ("hippocampus", "head", set()),
        ("left atrium", "heart", {"chest"}),
        ("polyp", "bowel", set()),
        ("white blood cell", "blood", set()),
    ],
)
def test_a_target_names_its_own_part_first(name: str, own: str, others: set[str]) -> None:
    parts = vocabulary.parts_of(name)
    assert (parts[0], set(parts[1:])) == (own, others)


def test_a_name_that_is_not_canonical_has_no_part() -> None:
    assert vocabulary.parts_of("hepar") == ()
    assert vocabulary.parts_of("green spot") == ()


def test_prompts_keep_the_wording_that_models_were_trained_with() -> None:
    named = vocabulary.targets()
    assert named["soft-tissue sarcoma"].phrase("mri") == "soft-tissue sarcoma in limb MRI"
    assert named["retinal blood vessel"].phrase("fundus") == "retinal blood vessel in retinal fundus"


def test_a_part_is_shown_where_its_whole_is() -> None:
    for target in vocabulary.targets().values():
        for whole in vocabulary.wholes(target.name):
            assert set(target.parts) & set(vocabulary.parts_of(whole)), f"{target.name} and {whole} share no picture"
