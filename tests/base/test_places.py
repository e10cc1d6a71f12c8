"""Places that are not there: mended, or named with the variable that mends them, before anything starts."""

from __future__ import annotations

import getpass
import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssm_platform.base.places import cache_folder, part_path, ready_places

NAMES = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "TMPDIR", "RAY_TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
CACHES = ("MPLCONFIGDIR", "HF_HOME", "TORCH_HOME")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A sound environment of our own; what `ready_places` sets is undone."""
    for name in (*NAMES, *CACHES):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield
    tempfile.tempdir = None


def nobody(uid: int) -> None:
    raise KeyError(f"getpwuid(): uid not found: {uid}")


def test_a_sound_place_is_left_alone() -> None:
    before = dict(os.environ)
    ready_places()
    assert dict(os.environ) == before


def test_a_user_without_an_entry_gets_a_name_and_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    ready_places()
    assert getpass.getuser() == f"uid{os.getuid()}"
    assert os.access(Path.home(), os.W_OK)
    assert Path.home().stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("home", ["absent", "/proc"])
def test_a_home_that_cannot_be_written(home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / home))
    monkeypatch.setattr(os, "access", lambda place, how: not str(place).startswith("/proc"))
    ready_places()
    assert (Path.home() == Path("/proc")) == (home == "/proc")  # one that is there keeps its role
    assert str(cache_folder()).startswith(tempfile.gettempdir())


def test_a_long_temporary_folder_is_left_for_a_short_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("slurm_job_" * 8)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    ready_places()
    assert len(os.environ["RAY_TMPDIR"]) < 20
    assert tempfile.gettempdir() == str(long)


def test_what_cannot_be_mended_names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("x" * 90)))
    with pytest.raises(ValueError, match=r"RAY_TMPDIR=.*at most \d+ characters"):
        ready_places()


def test_names_of_scratch_files_are_short_and_apart(tmp_path: Path) -> None:
    one, other = part_path(tmp_path / ("顔" * 83)), part_path(tmp_path / ("顔" * 84))
    assert one != other
    assert one.parent == tmp_path
    assert len(os.fsencode(one.name)) < 64
