"""Indices of a corpus's videos are made once, kept beside them, and never believed where anything changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ssm_platform.media import kept_indices, video_index
from ssm_platform.media.kept_indices import corpus_index
from ssm_platform.media.video_index import VideoIndex, index_video
from ssm_platform.synthetic.sample import write_sample

Open = Callable[[], tuple[VideoIndex, int]]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A corpus of one video, and scratch of its own."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "corpus").mkdir()
    write_sample(tmp_path / "corpus" / "v.mp4")
    return tmp_path / "corpus"


@pytest.fixture
def another_process_opens(root: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """What a process that has opened nothing yet gets, and how many passes over packets it takes."""
    passes = []
    made = video_index._index_container
    monkeypatch.setattr(video_index, "_index_container", lambda *args: passes.append(args) or made(*args))

    def opened() -> tuple[VideoIndex, int]:
        kept_indices._index.cache_clear()
        video_index._index_cached.cache_clear()
        passes.clear()
        return corpus_index(root / "v.mp4", root), len(passes)

    return opened


def same(one: VideoIndex, other: VideoIndex) -> bool:
    assert one.times.dtype == other.times.dtype
    equal = np.array_equal(one.times, other.times) and np.array_equal(one.keys, other.keys)
    return equal and one.info == other.info and one.time_base == other.time_base


def test_a_video_is_indexed_once_and_again_where_it_changed(root: Path, another_process_opens: Open) -> None:
    index, passes = another_process_opens()
    assert passes == 1
    assert same(index, index_video(root / "v.mp4"))
    again, passes = another_process_opens()
    assert passes == 0
    assert same(again, index)
    os.utime(root / "v.mp4", (1, 1))
    assert another_process_opens()[1] == 1


@pytest.mark.parametrize("spoil", [lambda data: data[:-9], lambda data: data[:-1] + b"x", lambda data: b""])
def test_a_torn_or_damaged_index_is_none(
    root: Path, another_process_opens: Open, spoil: Callable[[bytes], bytes]
) -> None:
    index, _ = another_process_opens()
    (kept,) = (file for file in (root / ".ssm" / "indices").rglob("*") if file.is_file())
    kept.write_bytes(spoil(kept.read_bytes()))
    again, passes = another_process_opens()
    assert passes == 1
    assert same(again, index)
    assert another_process_opens()[1] == 0, "mended"


def test_where_the_corpus_cannot_be_written_this_machine_keeps_it(root: Path, another_process_opens: Open) -> None:
    (root / ".ssm").touch()  # in the way of a folder, for the superuser too
    another_process_opens()
    assert another_process_opens()[1] == 0
    assert not list(root.rglob("indices"))
