"""Intake: folders of uploads that nobody can plant or inherit, and room that is taken before a body is read."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from serve.errors import Refusal
from serve.intake.places import Places
from serve.intake.spool import Spool

MAKE = "import sys, time; from serve.intake.spool import Spool; print(Spool(sys.argv[1], 9).folder, flush=True); "


def test_a_planted_link_is_not_followed_and_names_cannot_be_guessed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    base = tmp_path / "spool"
    base.mkdir()
    (base / "ssm-serve-planted").symlink_to(precious)
    one, two = Spool(str(base), 100), Spool(str(base), 100)
    assert (precious / "file").read_text() == "x"
    assert one.folder != two.folder
    assert one.folder.stat().st_mode & 0o777 == 0o700
    with one.request(1) as folder:
        assert folder.parent == one.folder
    for spool in (one, two):
        spool.close()
        assert not spool.folder.exists()


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_stays(tmp_path: Path) -> None:
    code = MAKE + "time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    try:
        (folder / "upload").write_bytes(b"x")
        Spool(str(tmp_path), 9).close()
        assert (folder / "upload").exists(), "its owner lives"
    finally:
        process.kill()
        process.wait()
    Spool(str(tmp_path), 9).close()
    assert not folder.exists()


def test_room_is_taken_before_and_given_back_after(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), 100)
    with spool.request(60):
        with pytest.raises(Refusal) as caught, spool.request(41):
            pass
        assert (caught.value.status, caught.value.retry_after is None) == (503, False)
        with spool.request(40):
            pass
    with pytest.raises(ValueError, match="x"), spool.request(100):
        raise ValueError("x")
    with spool.request(100):
        pass
    assert list(spool.folder.iterdir()) == []
    spool.close()


def test_a_full_disk_is_507(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), 2**62)
    with pytest.raises(Refusal) as caught, spool.request(2**60):
        pass
    assert caught.value.status == 507
    spool.close()


def test_a_disk_that_others_fill_meanwhile_is_507(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), 100)
    with pytest.raises(Refusal) as caught, spool.request(10):
        Path("/dev/full").write_bytes(b"x")
    assert caught.value.status == 507
    with pytest.raises(PermissionError), spool.request(100):
        raise PermissionError("another trouble stays what it is")
    spool.close()


def test_a_folder_that_a_neighbour_sweeps_away_while_it_is_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    real = tempfile.mkdtemp

    def swept(*arguments: Any, **named: Any) -> str:
        made.append(real(*arguments, **named))
        if len(made) == 1:
            Path(made[0]).rmdir()
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", swept)
    spool = Spool(str(tmp_path), 9)
    assert str(spool.folder) == made[1]
    spool.close()


def test_places_are_refused_at_different_times() -> None:
    places = Places("uploads", 1)
    pauses = set()
    with places.one():
        for _ in range(60):
            with pytest.raises(Refusal) as caught, places.one():
                pass
            pauses.add(caught.value.retry_after)
    assert len(pauses) > 1, "clients that come back all at once are refused again"
    with places.one():
        assert places.taken == 1
