"""A kept reading is the reading, and is none once anything it depends on has changed or it is not whole."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from ssm_platform.corpora.registry import CorpusRefused, read_corpus
from ssm_platform.runs import readings


@pytest.fixture
def root(tiny_corpora: Path, tmp_path: Path) -> Path:
    """A corpus that nobody has read yet, whoever has read the one it is a copy of."""
    fresh = shutil.ignore_patterns(readings.FOLDER)
    return Path(shutil.copytree(tiny_corpora / "bp4d", tmp_path / "bp4d", ignore=fresh))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the corpora that were really read."""
    seen: list[str] = []

    def counted(name: str, root: Path, **options: Any) -> Any:
        seen.append(name)
        return read_corpus(name, root, **options)

    monkeypatch.setattr(readings, "read_corpus", counted)
    return seen


def test_the_second_start_reads_what_was_kept(root: Path, reads: list[str]) -> None:
    first, second = (readings.read("bp4d", root, {}) for _ in range(2))
    assert reads == ["bp4d"]
    assert second.manifest.fingerprint == first.manifest.fingerprint == read_corpus("bp4d", root).manifest.fingerprint
    assert (second.issues, second.rows, second.manifest.root) == (first.issues, first.rows, first.manifest.root)


def rewritten(root: Path) -> None:
    table = next((root / "AUCoding" / "AU_OCC").glob("*.csv"))
    table.write_text(table.read_text())
    os.utime(table, (time.time() + 5, time.time() + 5))


def gone(root: Path) -> None:
    next((root / "AUCoding" / "AU_OCC").glob("*.csv")).unlink()


def torn(root: Path) -> None:
    kept = next((root / readings.FOLDER).glob("*.parquet"))
    kept.write_bytes(kept.read_bytes()[: kept.stat().st_size // 2])


def half_written(root: Path) -> None:
    next((root / readings.FOLDER).glob("*.json")).unlink()


def not_ours(root: Path) -> None:
    next((root / readings.FOLDER).glob("*.json")).write_text(json.dumps({"rows": "many"}))


def not_text(root: Path) -> None:
    next((root / readings.FOLDER).glob("*.json")).write_bytes(b"\xff\xfe\x00")


def other_rights(root: Path) -> None:
    """As where a file that could not be read is opened to the reader: neither size nor time of its content changes."""
    next((root / "AUCoding" / "AU_OCC").glob("*.csv")).chmod(0o640)


@pytest.mark.parametrize("change", [rewritten, gone, torn, half_written, not_ours, not_text, other_rights])
def test_a_stale_or_torn_reading_is_read_again(root: Path, reads: list[str], change: Any) -> None:
    readings.read("bp4d", root, {})
    change(root)
    again = readings.read("bp4d", root, {})
    assert len(reads) == 2
    assert again.manifest.fingerprint == read_corpus("bp4d", root).manifest.fingerprint
    assert readings.read("bp4d", root, {}).manifest.fingerprint == again.manifest.fingerprint
    assert len(reads) == 2
    assert len(list((root / readings.FOLDER).iterdir())) == 2, "the one before is not kept"


def test_links_in_circles_and_names_in_no_encoding_are_listed(root: Path, reads: list[str]) -> None:
    (root / "self").symlink_to("self")
    (root / "AUCoding" / "up").symlink_to("..")
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.txt")).touch()
    for _ in range(2):
        readings.read("bp4d", root, {})
    assert len(reads) == 1


def test_other_options_and_a_refused_corpus_are_read(root: Path, reads: list[str]) -> None:
    readings.read("bp4d", root, {})
    readings.read("bp4d", root, {"aus": (1, 2)})
    assert len(reads) == 2
    shutil.rmtree(root / "AUCoding")
    for _ in range(2):
        with pytest.raises(CorpusRefused):
            readings.read("bp4d", root, {})
    assert len(reads) == 4


def test_a_tree_that_cannot_be_written_is_kept_in_the_users_cache(
    root: Path, reads: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readings.os, "access", lambda _, mode: not mode & os.W_OK)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for _ in range(2):
        readings.read("bp4d", root, {})
    assert reads == ["bp4d"]
    assert not (root / readings.FOLDER).exists()
    (tmp_path / "cache" / "taken").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache" / "taken"))
    assert len(readings.read("bp4d", root, {}).manifest)
