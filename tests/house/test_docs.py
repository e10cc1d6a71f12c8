"""Every command of README.md and docs/ is executed: here at a tiny size, or by a test that `ELSEWHERE` names.

A command that no table knows fails. To mend that: run it here (add what makes it tiny to `TINY`), or name the test
that runs it (`ELSEWHERE`), or, where no test could, say why (`NOT_HERE`).
"""

from __future__ import annotations

import ast
import logging
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pages import documented

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
PROGRAMS = ("python", "ssm-platform", "make", "ray", "serve", "curl", "docker", "kubectl", "pip", "nginx")

TINY = (
    (r"/data/BP4D", "runs/corpora/tiny/bp4d"),
    (r"/data/DFEW", "runs/corpora/tiny/dfew"),
    (r"/data/shards/|s3://bucket/dfew", "shards/"),
    (r" --option delivery=original", ""),
    (r"--data\.corpora\.bp4d\.root=null", "--data.corpora.bp4d.root=null --data.corpora.bp4d.synthetic=null"),
    (r"--recipe=published_bp4d_dfew\b|--recipe[= ]quickstart\b", "--recipe=tiny"),
    (r"--repeats 3 --vary model.text.style=\S+ --vary model.mapping.off=\S+", "--vary model.text.style=label"),
    (r" --name=quickstart-3600 --steps=3600 --scale\.threads_per_worker=1", ""),
    (r"jobs/train\.py$", "jobs/train.py --recipe=tiny"),
    (r"runs/(published-bp4d-dfew|quickstart)\b", "runs/tiny"),
    (r" s3://bucket/prefix", ""),
    (r"jobs/synthesize\.py (\w+) \S+( --preset \w+)?", r"jobs/synthesize.py \1 written/\1 --preset tiny"),
    (r"--faces\.model=yunet\.onnx", f"--faces.model={REPOSITORY.parent}/shared/data/face_detection_yunet_2026may.onnx"),
    (r"^make quickstart$", "python jobs/quickstart.py --recipe=tiny"),
)
"""What makes a command tiny; it is else executed as it stands, in a folder like the repository's."""

ELSEWHERE = (
    (r"^ray job submit (--working-dir|-- )", "tests/house/test_submit.py"),
    (r"^(RAY_AUTH_MODE=token )?ray start --head", "tests/house/conftest.py"),
    (r"^ray get-auth-token", "tests/house/conftest.py"),
    (r"^python jobs/deploy\.py", "tests/serve/test_deploy.py"),
    (r"^serve run serve\.app:build", "tests/serve/test_service.py"),
    (r"^nginx -p ", "tests/serve/test_proxy.py"),
    (r"^python jobs/import_released\.py", "tests/ssm/saved/test_released.py"),
    (r"^python jobs/fit_rule\.py", "tests/evaluate/test_fitting.py"),
    (r"^python jobs/(count_prior\.py|train\.py --recipe=counted)", "tests/corpora/test_association.py"),
    (r"^python bench/serving/mangled", "tests/serve/test_mangled.py"),
    (r"^python -m pytest (tests/\S+)", ""),
)
"""Commands that other tests execute: pattern and file, which takes the command from a page by `pages.documented`."""

NOT_HERE = {
    r"^ray (up|down|dashboard|job submit --address)": "needs an AWS account; the file is held by test_manifests.py",
    r"^(docker|kubectl) ": "needs a registry and a Kubernetes cluster; the manifests are held by test_manifests.py",
    r"^python bench/": "minutes of measurement; each page shows the output",
    r"^make test$": "that is what runs this",
    r"^ray metrics ": "starts Prometheus, which is no dependency",
    r"^pip install": "the installation itself",
    r"/data/fer2013|real-faces": "needs FER-2013, which is no part of the repository, and an hour",
    r"/data/(cremad|ravdess)": "needs corpora that are no part of the repository; tests/corpora holds their readers",
}

PYTHON_ELSEWHERE = {
    "# example": "tests/serve/test_service.py",
    "stream.split(": "tests/data/test_streams.py",
    "OrderHash(": "tests/data/test_order.py",
    "ModelConfig()": "tests/ssm/model/test_network.py",
    "class CalmReader": "tests/house/test_add_a_method.py",
    "def jumps(": "tests/house/test_add_a_method.py",
    'made("calm")': "tests/house/test_add_a_method.py",
    "s3://ssm-platform": "tests/models/test_registry.py",
}
"""Python blocks that are fragments or need what is not here, by a phrase of theirs, and the tests of what they show."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    language: str
    text: str


def blocks() -> Iterator[Block]:
    for page in PAGES:
        for language, text in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            yield Block(page.name, language, text)


def commands() -> list[tuple[str, str]]:
    """(page, command) of every block, without comments and with continued lines joined."""
    found = []
    for block in blocks():
        if block.language not in ("", "bash", "sh", "console") or block.text.startswith("# example"):
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            command = re.sub(r"\s+# .*$", "", re.sub(r"\s+", " ", line.removeprefix("$ "))).strip()
            program = next((word for word in command.split() if "=" not in word), "")
            if program in PROGRAMS and "[--" not in command:
                found.append((block.page, command))
    return sorted(set(found))


def elsewhere(command: str) -> str | None:
    return next((place for pattern, place in ELSEWHERE if re.search(pattern, command)), None)


def taken_from_pages(file: Path) -> list[list[str]]:
    """The commands that a test takes from a page."""
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    named = [call.args for call in calls if isinstance(call.func, ast.Name) and call.func.id == "documented"]
    return [documented(*(ast.literal_eval(argument) for argument in arguments)) for arguments in named]


def is_not_here(command: str) -> bool:
    return any(re.search(pattern, command) for pattern in NOT_HERE)


def tiny(command: str) -> list[str]:
    for pattern, replacement in TINY:
        command = re.sub(pattern, replacement, command)
    return shlex.split(command)


COMMANDS = commands()
HERE = {
    " ".join(tiny(command)): (page, command)
    for page, command in COMMANDS
    if elsewhere(command) is None and not is_not_here(command)
}


@pytest.fixture(scope="module")
def workspace(tiny_run: Path, tiny_corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the repository's after a quickstart, with the tiny run in place of it."""
    from ssm_platform.corpora import read_corpus
    from ssm_platform.media import InputLimits, encode_jpeg, open_input
    from ssm_platform.synthetic import PRESETS, write_corpus
    from ssm_platform.synthetic.sample import write_sample

    folder = tmp_path_factory.mktemp("workspace")
    for name in ("jobs", "deploy"):
        (folder / name).symlink_to(REPOSITORY / name)
    shutil.copytree(tiny_run.parent, folder / "runs")
    (folder / "runs" / "corpora").mkdir()
    (folder / "runs" / "corpora" / "tiny").symlink_to(tiny_corpora)
    write_corpus("disfa", folder / "disfa", PRESETS["tiny"], 1)
    clip = write_sample(folder / "clip.mp4")
    (folder / "videos").mkdir()
    shutil.copy(clip, folder / "videos" / "two.mp4")
    shutil.copy(clip, folder / "one.mp4")
    read_corpus("bp4d", tiny_corpora / "bp4d").manifest.write(folder / "records.parquet")
    first = next(open_input([clip], "av", InputLimits()).frames()).image
    (folder / "photo.jpg").write_bytes(encode_jpeg(first, 90))
    (folder / "my.yaml").write_text("storage: s3://my-bucket/runs\nregion: us-west-2\n")
    return folder


def test_the_pages_hold_commands() -> None:
    assert len(COMMANDS) > 15
    assert {page for page, _ in COMMANDS} >= {"README.md", "training.md", "serving.md", "cluster.md"}


@pytest.mark.ray
@pytest.mark.parametrize(("page", "command"), HERE.values(), ids=HERE)
def test_a_command_runs(page: str, command: str, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job runs in this process, on the session's cluster; a job that starts others runs as a process of its own."""
    program, script, *arguments = tiny(command)
    if program == "ssm-platform":  # the console command is this module
        program, script, arguments = "python", "jobs/command.py", [script, *arguments]
    assert program == "python", f"{page}: no table of this test knows how {command!r} is executed"
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("RAY_ADDRESS", _address())
    if script == "jobs/quickstart.py":
        done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        assert "Serve the model and open" in done.stdout
        said = [
            line for line in done.stderr.splitlines() if re.search(r"\.cc:\d+\]|executor\.py|Progress bars dis", line)
        ]
        assert said == [], "what Ray has to say belongs in its logs"
        return
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    ended: object = 0
    level = logging.getLogger().level
    try:
        runpy.run_path(str(workspace / script), run_name="__main__")
    except SystemExit as end:
        ended = end.code
    finally:
        logging.getLogger().setLevel(level)  # `--quiet` silences the process, which here is pytest's
    assert ended in (None, 0), f"{page}: {command}: {ended}"


@pytest.mark.parametrize("command", [command for _, command in COMMANDS if elsewhere(command) is not None])
def test_a_command_that_runs_elsewhere_does(command: str) -> None:
    place = elsewhere(command)
    if not place:  # the command itself names a test
        path, _, name = command.split()[-1].partition("::")
        assert (REPOSITORY / path).exists(), command
        assert not name or f"def {name.partition('[')[0]}(" in (REPOSITORY / path).read_text(), command
        return
    assert shlex.split(command) in taken_from_pages(REPOSITORY / place), f"{place} does not run {command!r} any more"


@pytest.mark.ray
def test_python_on_the_pages_runs(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    ran = 0
    for block in blocks():
        if block.language != "python":
            continue
        known = next((place for phrase, place in PYTHON_ELSEWHERE.items() if phrase in block.text), None)
        if known is not None:
            assert (REPOSITORY / known).is_file()
            continue
        code = block.text.replace("runs/quickstart", "runs/tiny")
        code = code.replace("/data/DISFA", str(workspace / "disfa"))
        exec(compile(code, f"docs/{block.page}", "exec"), {"__name__": "example"})
        ran += 1
    assert ran >= 4


def test_links_and_tests_that_pages_name_are_there() -> None:
    missing = []
    for page in PAGES:
        text = page.read_text()
        targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
        missing += [f"{page.name}: {target}" for target in targets if not (page.parent / target).exists()]
        for path, name in re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", text):
            file = REPOSITORY / path
            if not file.is_file() or (name and f"def {name}(" not in file.read_text()):
                missing.append(f"{page.name}: {path}::{name}")
    assert missing == []


def test_the_sections_that_code_cites_are_there() -> None:
    headings = set(re.findall(r"^## (\d)\. ", (REPOSITORY / "docs" / "method.md").read_text(), re.MULTILINE))
    sources = [path.read_text() for folder in ("ssm", "platform") for path in (REPOSITORY / folder).rglob("*.py")]
    cited = {number for text in sources for number in re.findall(r"\bsections? (\d)", text)}
    assert cited
    assert cited <= headings


def _address() -> str:
    import ray

    return str(ray.get_runtime_context().gcs_address) if ray.is_initialized() else os.environ.get("RAY_ADDRESS", "")
