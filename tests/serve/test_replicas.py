"""The plain classes behind the deployments: settings, a model that changes, replicas that die (faked)."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError
from starlette.testclient import TestClient

from serve.app import build
from serve.errors import Refusal
from serve.http.app import create_app
from serve.intake.spool import Spool
from serve.observe.metrics import IngressMetrics
from serve.replicas.backend import HandleBackend
from serve.replicas.camera import CameraAnalysis
from serve.replicas.model import Inference, Reading
from serve.replicas.video import Asked, Start, VideoAnalysis
from serve.settings import Scaling, Settings
from ssm_platform.faces.settings import FaceSettings
from ssm_platform.models.registry import Registry
from ssm_platform.read.places import FacePlaces
from ssm_platform.read.windows import Row, Window

Run = Callable[..., Any]


# -- settings and the builder ------------------------------------------------------------------------------------


def test_unknown_keys_and_batches_that_never_fill_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        Settings.model_validate({"model": "x", "modle": "y"})
    with pytest.raises(ValidationError, match="never fills"):
        Settings(model="x", batch=64, inference=Scaling(ongoing=8, target=4))
    with pytest.raises(ValidationError, match="replicas_max"):
        Scaling(replicas=3, replicas_max=2)
    options = Scaling(replicas=2, replicas_max=5, cpus=0.5, queued=7).options()
    assert options["max_queued_requests"] == 7
    assert options["autoscaling_config"]["max_replicas"] == 5
    assert options["max_surge_percent"] == 100


def test_the_builder_takes_a_folder_or_an_alias_and_refuses_what_cannot_be_served(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(tmp_path / "registry")
    version = registry.publish(model_folder, "run")
    application = build(Settings(model="latest", registry=str(tmp_path / "registry")))
    model = application._bound_deployment.init_args[3]._bound_deployment
    assert model._deployment_config.user_config == {"model": version}, "an alias is pinned to what it means today"
    options = model._replica_config.ray_actor_options
    assert options["runtime_env"]["env_vars"]["MALLOC_MMAP_THRESHOLD_"] == str(2**25), "activations are not mapped anew"
    with pytest.raises(ValueError, match="no such folder"):
        build(Settings(model=str(tmp_path / "nothing")))
    with pytest.raises(ValueError, match=r"absent\.onnx"):
        build(
            Settings(model=str(model_folder), detection=FaceSettings(detector="yunet", model=tmp_path / "absent.onnx"))
        )
    with pytest.raises(ValueError, match="SSM_TEST_TOKEN"):
        build(Settings(model=str(model_folder), token_variable="SSM_TEST_TOKEN"))
    monkeypatch.setenv("SSM_TEST_TOKEN", "x" * 16 + "\n")
    guarded = build(Settings(model=str(model_folder), token_variable="SSM_TEST_TOKEN"))
    assert guarded._bound_deployment.init_args[1] == "x" * 16, "the last newline of a file is no part of a token"


def tampered(folder: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    config = json.loads((target / "config.json").read_text())
    change(config)
    (target / "config.json").write_text(json.dumps(config))
    return target


def test_a_replica_refuses_a_model_whose_preprocessing_does_not_match(
    model_folder: Path, tmp_path: Path, run: Run
) -> None:
    changes: dict[str, Callable[[dict[str, Any]], None]] = {
        "changed": lambda config: config["facts"]["preprocessing"].update(mean=[0.5, 0.5, 0.5]),
        "resized": lambda config: config["facts"]["preprocessing"].update(image_size=64),
        "absent": lambda config: config["facts"].update(preprocessing=None),
    }
    inference = Inference(Settings(model=str(model_folder)))
    run(inference.reconfigure({"model": str(model_folder)}))
    before = run(inference.describe())
    for name, change in changes.items():
        folder = tampered(model_folder, tmp_path / name, change)
        with pytest.raises(ValueError, match=r"preprocessing|prepared"):
            run(inference.reconfigure({"model": str(folder)}))
        with pytest.raises(ValueError, match=r"preprocessing|prepared"):
            build(Settings(model=str(folder)))
    assert run(inference.describe()) == before, "it keeps what it has"


# -- a model that changes ------------------------------------------------------------------------------------------


def test_a_video_under_way_is_finished_by_the_model_it_began_with(
    model_folder: Path, other_model_folder: Path, run: Run
) -> None:
    inference = Inference(Settings(model=str(model_folder), threads=1))
    run(inference.reconfigure({"model": str(model_folder)}))
    served = run(inference.describe())
    blank = inference._readers[served.description.version].blank()
    before = run(inference.read(blank, served))
    run(inference.reconfigure({"model": str(other_model_folder)}))
    assert run(inference.read(blank)).version != served.description.version
    assert run(inference.read(blank, served)).version == served.description.version
    fresh = Inference(Settings(model=str(other_model_folder), threads=1))  # a replica that never had the old one
    run(fresh.reconfigure({"model": str(other_model_folder)}))
    again = run(fresh.read(blank, served))
    np.testing.assert_array_equal(again.answers.au_probability, before.answers.au_probability)
    assert run(fresh.describe()).description.version != served.description.version


def test_a_caller_who_comes_while_a_pass_ends_fails_nobody(model_folder: Path, run: Run) -> None:
    inference = Inference(Settings(model=str(model_folder), threads=1, batch=1))
    run(inference.reconfigure({"model": str(model_folder)}))
    blank = inference._readers[run(inference.describe()).description.version].blank()

    async def ask() -> int:
        loop, tasks, answers = asyncio.get_running_loop(), [], 0

        class Counted(np.ndarray[Any, Any]):
            """Clips: whenever the model's thread counts them, another caller comes."""

            def __len__(self) -> int:
                if threading.current_thread() is not threading.main_thread():
                    arrived = threading.Event()
                    loop.call_soon_threadsafe(come, blank, arrived)
                    assert arrived.wait(20)
                return int(self.shape[0])

        def come(clips: NDArray[np.uint8], arrived: threading.Event) -> None:
            tasks.append(asyncio.create_task(inference.read(clips)))
            loop.call_soon(arrived.set)

        for _ in range(3):
            come(blank.view(Counted), threading.Event())
        while tasks:
            await tasks.pop(0)
            answers += 1
        return answers

    assert run(ask()) > 3


def test_a_caller_that_leaves_while_a_model_is_loaded_lets_nobody_load_beside(
    model_folder: Path, other_model_folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    inference = Inference(Settings(model=str(model_folder), threads=1))
    run(inference.reconfigure({"model": str(other_model_folder)}))
    other = Inference(Settings(model=str(model_folder), threads=1))
    run(other.reconfigure({"model": str(model_folder)}))
    served, real = run(other.describe()), inference._load
    loading, most = 0, 0

    def slow(model: str) -> Any:
        nonlocal loading, most
        loading += 1
        most = max(most, loading)
        time.sleep(0.2)
        loading -= 1
        return real(model)

    monkeypatch.setattr(inference, "_load", slow)

    async def ask() -> Reading:
        blank = inference._readers[(await inference.describe()).description.version].blank()
        for _ in range(3):
            leaving = asyncio.create_task(inference.read(blank, served))
            await asyncio.sleep(0.05)
            leaving.cancel()
        return await inference.read(blank, served)

    assert run(ask()).version == served.description.version
    assert most == 1


def test_a_machine_without_the_file_to_find_faces_with_is_503(
    run: Run, model_folder: Path, face_video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a new node that the hub is out of reach of, in a service that was built where it was at hand."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    settings = Settings(model=str(model_folder), threads=1, detection=FaceSettings(detector="yunet"))
    inference = Inference(settings)
    run(inference.reconfigure({"model": str(model_folder)}))
    analysis = VideoAnalysis(settings, inference.read, inference.where, inference.describe)

    async def ask() -> list[Any]:
        return [said async for said in analysis.analyse([face_video], Asked())]

    (refusal,) = run(ask())
    assert (refusal.status, bool(refusal.retry_after)) == (503, True)
    with pytest.raises(Refusal, match="cannot look for faces"):
        CameraAnalysis(settings, HandleBackend(NobodyThere(), NobodyThere(), 1), run(inference.describe()), Asked())


def test_health_is_a_real_answer_of_the_model(model_folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    inference = Inference(Settings(model=str(model_folder), threads=1))
    run(inference.reconfigure({"model": str(model_folder)}))
    told: list[tuple[str, bool]] = []
    monkeypatch.setattr(inference._metrics, "model", lambda *said: told.append(said))
    run(inference.check_health())
    run(inference.check_health())
    version = run(inference.describe()).description.version
    assert told == [(version, True)] * 2, "a gauge that is set once is gone from /metrics 20 s later"
    reader = next(iter(inference._readers.values()))
    inference._answered = 0.0
    reader._predictor.model.au_head.linear.bias.data.fill_(float("nan"))
    with pytest.raises(RuntimeError, match="not finite"):
        run(inference.check_health())


# -- replicas that die: fakes of Serve's handles around the real classes ----------------------------------------------


class FakeHandle:
    """A handle whose replicas die or are busy as told, and otherwise are the real thing."""

    def __init__(self, target: Callable[..., Any], troubles: list[Exception | int | None]) -> None:
        self._target, self._troubles = target, troubles
        self.calls = 0

    def options(self, **_: object) -> FakeHandle:
        return self

    def __getattr__(self, name: str) -> FakeHandle:
        return self

    def remote(self, *arguments: Any) -> Any:
        trouble = self._troubles[self.calls] if self.calls < len(self._troubles) else None
        self.calls += 1
        return FakeStream(self._target(*arguments), trouble)


class FakeStream:
    """A stream that breaks: at once by an error, or after some items by a death."""

    def __init__(self, items: AsyncIterator[Any], trouble: Exception | int | None) -> None:
        self._items, self._trouble, self._given = items, trouble, 0

    def __aiter__(self) -> FakeStream:
        return self

    async def __anext__(self) -> Any:
        if isinstance(self._trouble, Exception):
            raise self._trouble
        if self._trouble is not None and self._given == self._trouble:
            raise RayActorError
        self._given += 1
        return await anext(self._items)

    def cancel(self) -> None:
        """Nothing to tell anyone."""


def analysed(
    run: Run,
    model_folder: Path,
    video: Path,
    troubles: list[Exception | int | None],
    asked: Asked = Asked(),  # noqa: B008
) -> list[Any]:
    """All that the backend says of a video while its replicas have troubles."""
    settings = Settings(model=str(model_folder), threads=1)
    inference = Inference(settings)
    analysis = VideoAnalysis(settings, inference.read, inference.where, inference.describe)

    async def ask() -> list[Any]:
        await inference.reconfigure({"model": str(model_folder)})
        handle = FakeHandle(lambda upload, asked, served, trace: analysis.analyse([video], asked, served), troubles)
        backend = HandleBackend(handle, handle, 1)  # type: ignore[arg-type]
        return [said async for said in backend.analyse([video], asked)]

    return run(ask())


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "serve.replicas.transfer.Upload.here", classmethod(lambda cls, paths: cls("here", tuple(map(str, paths))))
    )


@pytest.mark.parametrize("deaths", [[0], [2], [4, 1]])
def test_deaths_in_the_middle_of_a_video_repeat_and_lose_nothing(
    run: Run, model_folder: Path, face_video: Path, deaths: list[Exception | int | None]
) -> None:
    whole = analysed(run, model_folder, face_video, [])
    broken = analysed(run, model_folder, face_video, deaths)
    for kind in (Row, Window):
        rows, other = ([r for said in part if isinstance(said, list) for r in said if isinstance(r, kind)]
                       for part in (whole, broken))  # fmt: skip
        assert [(r.face_id, getattr(r, "frame", None), getattr(r, "start", None)) for r in rows] == [
            (r.face_id, getattr(r, "frame", None), getattr(r, "start", None)) for r in other
        ]
    assert sum(isinstance(said, Start) for said in broken) == 1


def test_heat_maps_come_last_and_once_whoever_died(run: Run, other_model_folder: Path, face_video: Path) -> None:
    said = analysed(run, other_model_folder, face_video, [4, 1], Asked(where=True))
    found = [[isinstance(result, FacePlaces) for result in part] for part in said if isinstance(part, list)]
    assert (found[-1], sum(map(sum, found))) == ([True], 1)


def test_a_model_that_looks_at_no_places_refuses_to_say_where(run: Run, model_folder: Path, face_video: Path) -> None:
    *_, refusal = analysed(run, model_folder, face_video, [], Asked(where=True))
    assert (refusal.status, refusal.message.startswith("where: ")) == (422, True)


def test_what_keeps_dying_or_is_full_is_503_with_retry_after(run: Run, model_folder: Path, face_video: Path) -> None:
    for troubles in ([1, 1, 1], [BackPressureError(1, 1)]):
        with pytest.raises(Refusal) as caught:
            analysed(run, model_folder, face_video, troubles)
        assert caught.value.status == 503
        assert caught.value.retry_after


class NobodyThere:
    """A handle without a replica left: as Ray's own, it waits for one without end."""

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[Any]] = []

    def options(self, **_: object) -> NobodyThere:
        return self

    def __getattr__(self, name: str) -> NobodyThere:
        return self

    def remote(self, *arguments: Any) -> asyncio.Future[Any]:
        self.asked.append(asyncio.get_running_loop().create_future())
        return self.asked[-1]


@pytest.mark.parametrize("path", ["/v2/health/ready", "/v2/models/ssm/ready", "/v2/models/ssm", "/v1/model"])
def test_with_no_replica_left_readiness_and_model_are_503_in_time(path: str, tmp_path: Path) -> None:
    settings, handle = Settings(model="x", hosts=("testserver",)), NobodyThere()
    backend = HandleBackend(handle, handle, patience_s=0.2)  # type: ignore[arg-type]
    with TestClient(create_app(settings, backend, IngressMetrics(), Spool(str(tmp_path), 10**9))) as client:
        answer = client.get(path)
        assert client.get("/v2/health/live").status_code == 200
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert "does not answer" in answer.json()["error"]
    assert [call.cancelled() for call in handle.asked] == [True], "nothing of it waits on in Serve's queue"


def test_replicas_that_hold_no_model_do_not_load_torch() -> None:
    code = "import sys, serve.deployments; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
