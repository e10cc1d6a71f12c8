"""Sweeps: what is refused before Ray starts, how many trials fit a budget, and a Bayesian search for real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from ssm.interface import Preprocessing
from ssm.labels import Vocabulary
from ssm.training import FE_AUGMENTATION
from ssm_platform.base.overrides import override
from ssm_platform.cluster.joining import ClusterSize, Node
from ssm_platform.data.clips import ClipConfig, ClipReader
from ssm_platform.data.plan import Plan, PlanConfig
from ssm_platform.faces import make_detector
from ssm_platform.ingest.corpus import ingest_shard, read_manifest
from ssm_platform.ingest.corpus import run as ingest_corpus
from ssm_platform.records.manifest import Manifest, Record
from ssm_platform.runs.config import RunConfig
from ssm_platform.runs.preflight import PreflightError
from ssm_platform.runs.recipes import tiny
from ssm_platform.search import tuning
from ssm_platform.search.space import SpaceError, parse_space
from ssm_platform.search.sweep import Sweep, SweepConfig, stored
from ssm_platform.search.trials import Budget, Ground, Trial

STYLE = "model.text.style"


@pytest.fixture
def base(tmp_path: Path) -> RunConfig:
    roots = {f"data.corpora.{name}.root": str(tmp_path / name) for name in ("bp4d", "dfew")}
    return override(tiny(), {"storage": str(tmp_path), "steps": 2, "validate_every": 1, "checkpoint.every": 2, **roots})


def sweep_of(base: RunConfig, *words: str, **settings: Any) -> Sweep:
    return Sweep(base, parse_space(words or (f"{STYLE}=facs,label",), base), SweepConfig(**settings))


@pytest.mark.parametrize(
    ("words", "settings", "message"),
    [
        ((), {"cpus": 1.5}, "cpus is 1.5: one trial needs 2.01"),
        (("seed=1,2",), {"repeats": 2}, "repeats are seeds"),
        (("scale.workers=1,400",), {"method": "grid"}, "400 workers cannot share"),
        (("model.mapping.off=0.02..0.9", "model.mapping.on=0.5..1.0"), {"trials": 60}, "the recipe refuses"),
        (("model.mapping.off=0.01..0.1",), {"method": "grid"}, "is a range: a grid needs choices"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(
    base: RunConfig, tmp_path: Path, words: tuple[str, ...], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises((SpaceError, PreflightError), match=message):
        sweep_of(base, *words, **settings).run()
    assert not list(tmp_path.iterdir())


def test_seeds_are_compared_between_finished_runs_only() -> None:
    for change in ({"method": "bayes"}, {"early_stopping": True}):
        with pytest.raises(ValueError, match="repeats is 3"):
            SweepConfig.model_validate({"repeats": 3, **change})


def test_as_many_trials_at_once_as_the_budget_holds(base: RunConfig) -> None:
    two = ClusterSize((Node(4, 0),))
    assert sweep_of(base).concurrent(two) == 1
    assert sweep_of(base, cpus=8).concurrent(ClusterSize((Node(64, 0),))) == 3
    assert sweep_of(base).concurrent(ClusterSize((Node(64, 0),))) == 31
    assert sweep_of(base, "scale.workers=1,2", method="grid").needed() == pytest.approx(2.51), "the greediest setting"
    on_gpus = override(base, {"scale.gpu": True})
    assert sweep_of(on_gpus).concurrent(ClusterSize((Node(64, 2),))) == 2


def test_a_joined_cluster_that_is_too_small_for_one_trial_is_refused_by_setting(base: RunConfig) -> None:
    for cpus in (1.0, 2.0):
        refusals = sweep_of(base)._refusals(ClusterSize((Node(cpus, 0),)))
        assert len(refusals) == 1
        assert "data.decode_workers" in refusals[0].setting
        assert f"{cpus:g}" in refusals[0].why


def test_early_stopping_knows_the_curves_before_a_restart(base: RunConfig, tmp_path: Path) -> None:
    past = [
        Trial.of({STYLE: style}, 1).scored([{"step": 1, "score": score}, {"step": 3, "score": score}])
        for style, score in (("facs", 0.5), ("label", 0.4), ("anatomy", 0.45))
    ]
    asha = tuning._asha(Ground(base, tmp_path, 1, tmp_path), Budget(1, 9), past)

    def decision(name: str, step: int, score: float) -> str:
        trial: Any = type("Trial", (), {"trial_id": name})()
        asha.on_trial_add(None, trial)
        return asha.on_trial_result(None, trial, {"step": step, "score": score})

    assert decision("bad", 1, 0.1) == "STOP"
    assert decision("good", 1, 0.6) == "CONTINUE"


def test_a_resumed_bayesian_search_begins_with_what_was_cut_off(base: RunConfig) -> None:
    space = parse_space([f"{STYLE}=facs,label", "model.mapping.off=log:0.005..0.1", "model.text.contexts=0..8"], base)
    fresh = tuning._searcher(space, 1, [], {})
    done, cut_off = (Trial.of(fresh.suggest(name), 1) for name in ("first", "second"))
    resumed = tuning._searcher(space, 1, [done.model_copy(update={"state": "finished"}), cut_off], {done.name: 0.5})
    assert resumed.suggest("third") == cut_off.setting
    assert resumed.suggest("fourth") not in (done.setting, cut_off.setting)


def test_in_a_log_each_trial_is_a_line(base: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorder = tuning._Recorder(Ground(base, tmp_path / "mine", 1, tmp_path), [], 2)
    recorder.setup()
    for name in ("first", "second"):
        trial = type("Trial", (), {"trial_id": name, "config": {STYLE: "facs"}, "error_file": None})()
        recorder.on_trial_error(1, [], trial)
    recorder.on_experiment_end([])
    assert capsys.readouterr().err == "sweep mine: 1/2 trials\nsweep mine: 2/2 trials\n"


def film(path: Path, frames: int = 20) -> None:
    """A wide picture with detail that shrinking and enlarging would wash out, moving."""
    noise = np.random.default_rng(0).integers(0, 255, (90, 160, 3), np.uint8)
    picture = cv2.resize(noise, (1280, 720), interpolation=cv2.INTER_LINEAR)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        for number in range(frames):
            moved = np.roll(picture, 8 * number, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
        container.mux(stream.encode())


def test_trials_train_on_the_pixels_that_the_recipe_would_see(base: RunConfig, tmp_path: Path) -> None:
    """Wide videos were stored at 256x144 and enlarged to the model's 224 again."""
    film(tmp_path / "wide.mp4")
    cv2.imwrite(str(tmp_path / "0.jpg"), np.random.default_rng(1).integers(0, 255, (400, 300, 3), np.uint8))
    records = [
        Record("film", "wide.mp4", "video", 0, 20, expression="anger"),
        Record("picture", ".", "frames", 0, 1, files=("0.jpg",), expression="fear"),
    ]
    labels = Vocabulary(expressions=("anger", "fear"))
    manifest = Manifest.build(tmp_path, "wild", "fe", labels, records)

    def here(manifest: Manifest, out: str, settings: Any, tasks: Any) -> Any:
        return [ingest_shard(manifest, out, settings, task, make_detector(settings.faces)) for task in tasks]

    ingest_corpus(manifest, tmp_path / "shards", stored(base), here)
    clips = ClipConfig(frames=4, preprocessing=Preprocessing(image_size=224), augmentation=(FE_AUGMENTATION,))
    rows = Plan.of([manifest], PlanConfig(fe_batch=4, au_batch=0, frames=4, seed=1)).rows(0, 6)
    own, shared = (
        ClipReader([one], labels, clips).read(rows.columns()) for one in (manifest, read_manifest(tmp_path / "shards"))
    )
    assert not any(own["problem"])
    assert np.array_equal(own["sample"], shared["sample"])
    apart = np.abs(own["clip"].astype(int) - shared["clip"]).mean((1, 2, 3, 4))
    assert (apart[own["record"] == 1] == 0).all(), "owners' JPEG files are the same bytes"
    assert apart.max() < 1.0, "grey levels: only the coding of a video's frames as JPEG"


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_bayesian_search_with_early_stopping_goes_on_with_what_it_knows(ray_cluster: None, base: RunConfig) -> None:
    words = (f"{STYLE}=facs,label", "model.mapping.off=log:0.005..0.1")
    settings = {"method": "bayes", "early_stopping": True}
    first = sweep_of(base, *words, **settings, trials=1)
    (one,) = first.run()
    assert one.state == "finished"
    assert [step for step, _ in one.curve] == [1, 2]
    assert one.score == max(score for _, score in one.curve)
    assert {"uar/dfew", "macro_f1/bp4d"} == set(one.metrics)

    trials = sweep_of(base, *words, **settings, trials=2).run()
    assert trials[0] == one
    assert len(trials) == 2
    assert trials[1].state in ("finished", "stopped")
    assert trials[1].setting != one.setting
    with pytest.raises(SpaceError, match="another space"):
        sweep_of(base, trials=2, method="bayes").run()
