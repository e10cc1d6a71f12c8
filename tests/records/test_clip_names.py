"""Which sequence a clip is of: only a number behind the last `#` is a part."""

from __future__ import annotations

import pytest

from ssm_platform.records.clip_names import part_name, sequence_of


@pytest.mark.parametrize(
    ("clip", "sequence"),
    [
        ("F001_T1", "F001_T1"),
        ("F001_T1#0", "F001_T1"),
        ("F001_T1#12", "F001_T1"),
        ("take#1/left", "take#1/left"),  # an owner's own `#`
        ("take#1/left#3", "take#1/left"),
        ("take#2b", "take#2b"),
        ("a#", "a#"),
    ],
)
def test_a_clip_is_of_the_sequence_it_was_cut_from(clip: str, sequence: str) -> None:
    assert sequence_of(clip) == sequence


def test_a_part_is_of_the_clip_that_it_is_named_after() -> None:
    assert sequence_of(part_name("take#1/left", 7)) == "take#1/left"
