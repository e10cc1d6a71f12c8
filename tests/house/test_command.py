"""`ssm-platform`: one command with the jobs as subcommands, quiet where nobody looks, one line where it is stopped."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from jobs import command
from jobs.predict import parse
from ssm_platform.read.batch import PredictSettings, predict_here, wants_cluster

REPOSITORY = Path(__file__).resolve().parents[2]


def said_by(*arguments: object, code: str | None = None) -> subprocess.CompletedProcess[str]:
    line = ["-m", "jobs.command", *map(str, arguments)] if code is None else ["-c", code, *map(str, arguments)]
    return subprocess.run(
        [sys.executable, *line],
        cwd=REPOSITORY,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_job_is_a_command_and_the_package_installs_it() -> None:
    modules = {path.stem for path in (REPOSITORY / "jobs").glob("*.py")} - {"__init__", "command"}
    assert {name.replace("-", "_") for name in command.COMMANDS} == modules
    for module in modules:
        assert callable(import_module(f"jobs.{module}").main)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"ssm-platform": "jobs.command:main"}
    assert "jobs" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def test_a_table_goes_to_standard_output_and_nothing_else_without_a_terminal(
    face_video: Path, model_folder: Path
) -> None:
    result = said_by("predict", face_video, "--out", "-", "--model", model_folder, "--device=cpu", "--quiet")
    assert (result.returncode, result.stderr) == (0, "")
    head, *rows = csv.reader(io.StringIO(result.stdout))
    assert head[:2] == ["frame", "face_id"]
    assert [row[0] for row in rows] == [str(number) for number in range(60)]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["predict", "absent.mp4", "--out", "out"], 1, "error: absent.mp4: no such file"),
        (["predict", "x.jpg", "y.jpg", "--out", "-"], 1, "the table of one input; there are 2"),
        (["predict", "--nonsense"], 2, "ssm-platform predict: error"),
        (["predikt"], 2, "invalid choice: 'predikt'"),
    ],
)
def test_a_refusal_is_one_line_and_its_code_says_which(
    arguments: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name in ("x.jpg", "y.jpg"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr(sys, "argv", ["ssm-platform", *arguments])
    with pytest.raises(SystemExit) as end:
        command.main()
    told = end.value.code if isinstance(end.value.code, str) else capsys.readouterr().err
    assert (1 if isinstance(end.value.code, str) else end.value.code) == code
    assert message in told


def test_help_says_what_exit_codes_mean(capsys: pytest.CaptureFixture[str]) -> None:
    for ask in (lambda: command.parse(["--help"]), lambda: parse(["--help"])):
        with pytest.raises(SystemExit):
            ask()
        assert "130 stopped by Ctrl-C" in " ".join(capsys.readouterr().out.split())


def test_stopping_is_one_line_and_a_closed_pipe_is_no_error() -> None:
    door = "from ssm_platform.base import front_door\ndef main(): {}\nfront_door(main)"
    stopped = said_by(code=door.format("raise KeyboardInterrupt"))
    assert (stopped.returncode, stopped.stderr) == (130, "stopped\n")
    piped = subprocess.run(
        f'"{sys.executable}" -c "import sys;from ssm_platform.base import front_door;'
        "front_door(lambda: [print(n) for n in range(99999)] and None)\" | head -1",
        shell=True, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (piped.stdout, piped.stderr) == ("0\n", "")


def test_a_few_inputs_are_read_here_and_ray_is_not_even_imported(
    face_video: Path, model_folder: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; from jobs.predict import predict; outcomes = predict(sys.argv[1:]);"
        "print([one.status for one in outcomes], 'ray' in sys.modules)"
    )
    result = said_by(face_video, "--out", tmp_path, "--model", model_folder, "--device=cpu", code=code)
    assert result.stdout.strip() == "['done'] False", result.stderr
    assert "input" not in result.stderr, "a bar where there is no terminal"
    settings = PredictSettings(model=str(model_folder))
    again = [*predict_here([], tmp_path, settings)]
    assert again == []


def test_a_cluster_is_started_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = PredictSettings()
    for cores, inputs, wanted in ((2, 100, False), (8, 1, False), (8, 7, False), (8, 8, True), (64, 1000, True)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: range(cores))
        assert wants_cluster(inputs, settings) == wanted
    assert wants_cluster(1, settings.model_copy(update={"workers": 2}))
    assert not wants_cluster(100, settings.model_copy(update={"workers": 1}))
