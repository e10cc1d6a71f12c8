"""The frame baseline: encoders agree, features are cached whole, heads learn what is planted, smoothing helps."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssm.interface import Preprocessing, Smoothing, center
from ssm.labels import AFFECT, Vocabulary
from ssm.metrics import AffectTable, ExpressionTable, affect_figures
from ssm_platform.base.overrides import OverrideError, override
from ssm_platform.corpora import read_corpus
from ssm_platform.frames import cache
from ssm_platform.frames.afterwards import Book, Scored, choose, frame_classes, scored, tables
from ssm_platform.frames.cache import Features
from ssm_platform.frames.config import AfterwardsConfig, EncoderConfig, FrameRun, HeadConfig, HeadsConfig
from ssm_platform.frames.encoders import Encoded, OnnxEncoder, TimmEncoder, encoder_key, make_encoder
from ssm_platform.frames.heads import frames_of, train_heads
from ssm_platform.frames.pooling import video_classifier, video_features
from ssm_platform.frames.recipes import FRAME_RECIPES, frame_recipe
from ssm_platform.frames.running import _notes
from ssm_platform.frames.stretches import Stretches
from ssm_platform.media import open_frames
from ssm_platform.records import Manifest, Record
from ssm_platform.synthetic import PRESETS, write_corpus

SIZE, WIDTH = 64, 12
VOCABULARY = Vocabulary(aus=(1, 4, 12), expressions=("happiness", "sadness", "neutral", "other"), affect=AFFECT)
FAST = HeadsConfig(
    hidden=16, fe=HeadConfig(epochs=6, batch=64, rate=1e-2), au=HeadConfig(epochs=6, batch=64, rate=1e-2),
    va=HeadConfig(epochs=12, batch=64, rate=1e-2),
)  # fmt: skip


def planted(videos: int = 8, frames: int = 90, seed: int = 0, noise: float = 1.0) -> tuple[Manifest, Features]:
    """Slow latent courses that AUs, affect and classes are functions of; features are latents under frame noise."""
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(4, WIDTH))
    records, features = [], []
    for video in range(videos):
        time = np.arange(frames)[:, None]
        latent = np.sin(time / generator.uniform(12, 25, 4) + generator.uniform(0, 6, 4))
        features.append(latent @ mixing + noise * generator.normal(size=(frames, WIDTH)))
        affect = (0.8 * latent[:, :2]).astype(np.float32)
        affect[::13] = np.nan
        aus = np.where(generator.random((frames, 3)) < 0.05, -1, latent[:, 1:] > 0.3).astype(np.int8)
        classes = np.array(["neutral", "happiness", "sadness"])[np.digitize(latent[:, 0], [-0.3, 0.3])]
        cuts = [0, *(np.flatnonzero(classes[1:] != classes[:-1]) + 1), frames]
        for number, (first, last) in enumerate(pairwise(cuts)):
            names = tuple(f"{frame:05d}.jpg" for frame in range(first, last))
            records.append(Record(
                f"v{video}#{number}", f"v{video}", "frames", 0, last - first, None, None, names,
                expression=str(classes[first]), au_labels=aus[first:last], va_labels=affect[first:last],
                group=f"v{video}",
            ))  # fmt: skip
    manifest = Manifest.build("/nowhere", "mtl", "au", VOCABULARY, records)
    return manifest, Features(np.concatenate(features).astype(np.float16), None, ())


@pytest.fixture(scope="module")
def trained() -> tuple[list[Scored], list[Scored]]:
    """Validation and test of heads that were trained on planted features."""
    books, sides = {}, {}
    for side, seed in (("train", 1), ("validation", 2), ("test", 3)):
        manifest, features = planted(seed=seed)
        books[side] = Book.of({"mtl": (manifest, features)})
        sides[side] = [manifest.of_task(task) for task in manifest.tasks]
    labelled = {
        side: {one.task: frames_of(one, books[side].rows(one).features, VOCABULARY) for one in sides[side]}
        for side in ("train", "validation")
    }
    heads = train_heads(labelled["train"], labelled["validation"], VOCABULARY, WIDTH, FAST, seed=1)
    return tuple([scored(one, books[side], heads) for one in sides[side]] for side in ("validation", "test"))  # type: ignore[return-value]


def test_heads_learn_what_is_planted_and_smoothing_beats_frames_beyond_the_interval(
    trained: tuple[list[Scored], list[Scored]],
) -> None:
    validation, test = trained
    chosen = choose(validation, AfterwardsConfig(half_windows=(0, 2, 5), au_half_windows=(0, 2, 5)), VOCABULARY)
    assert chosen.aus > 0
    assert chosen.expressions > 0
    assert chosen.gate == 1.0  # this encoder has no classes of its own
    smooth, plain = (tables(test, one, VOCABULARY) for one in (chosen, Smoothing()))
    accuracy = []
    for found in (smooth, plain):
        table = found["mtl@fe"]
        assert isinstance(table, ExpressionTable)
        accuracy.append((table.probabilities.argmax(1) == table.labels).mean())
    assert accuracy[0] > 0.6
    affect = smooth["mtl@va"]
    assert isinstance(affect, AffectTable)
    from ssm_platform.evaluate.affect import smoothed

    after, before = affect_figures(smoothed(affect, 4)).mean_ccc, affect_figures(affect).mean_ccc
    assert float(after.value) >= 0.8
    assert float(after.low) > float(before.high)


def test_smoothing_runs_over_a_video_and_not_over_records_that_are_cut_by_their_label(
    trained: tuple[list[Scored], list[Scored]],
) -> None:
    expressions = next(one for one in trained[1] if one.manifest.task == "fe")
    assert len(expressions.manifest) > 16
    assert expressions.stretches.lengths == (90,) * 8


def _frames(numbers: list[int], clip: str = "v", **changes: Any) -> Record:
    files = tuple(f"{number:05d}.jpg" for number in numbers)
    affect = np.full((len(numbers), 2), 0.5, np.float32)
    values = {"kind": "frames", "files": files, "group": "v", "va_labels": affect, **changes}
    return Record(clip, "v", start=0, length=len(numbers), **values)


def test_smoothing_bridges_frames_that_a_reader_left_out() -> None:
    """A gap of a few frames is filled in, a long one ends the stretch, and the filled frames are not judged."""
    records = [_frames([1, 2], "v#0"), _frames([5, 6], "v#1"), _frames([900, 901], "v#2")]
    manifest = Manifest.build("/nowhere", "affect", "va", Vocabulary(aus=(), expressions=(), affect=AFFECT), records)
    stretches = Stretches.of(manifest)
    assert stretches.lengths == (4, 2)
    values = np.array([0.0, 0.0, 0.3, 0.6, 9.0, 9.0])[:, None] * np.ones(2)
    whole = np.array([0, 0, 0.1, 0.2, 0.3, 0.6])  # frames 1 to 6
    want = [whole[:2].mean(), whole[:3].mean(), whole[3:6].mean(), whole[4:6].mean(), 9, 9]
    np.testing.assert_allclose(stretches.smoothed(values, 1)[:, 0], want)
    near, far = np.exp(-1 / 4), np.exp(-9 / 4)  # the second frame's neighbours lie 1 and 3 frames away
    second = stretches.smoothed(values, 1, sigma=4.0)[1, 0]
    assert second == pytest.approx(0.3 * far / (1 + near + far))
    table = tables([Scored(manifest, values, None, (), stretches)], Smoothing(), VOCABULARY)["affect"]
    assert isinstance(table, AffectTable)
    assert table.lengths == (6, 2)
    assert np.isnan(table.labels[:, 0]).tolist() == [False, False, True, True, False, False, False, False]


@pytest.mark.parametrize(
    "changes", [{"files": ("b.jpg", "a.jpg")}, {"files": ("7.jpg", "3.jpg")}, {"kind": "shard", "files": None}]
)
def test_where_frames_have_no_numbers_they_follow_each_other(changes: dict[str, Any]) -> None:
    manifest = Manifest.build(
        "/nowhere", "affect", "va", Vocabulary(aus=(), expressions=(), affect=AFFECT), [_frames([1, 2], **changes)]
    )
    assert Stretches.of(manifest).numbers.tolist() == [0, 1]


def test_a_gated_frame_takes_the_encoders_class_by_name_and_never_other(
    trained: tuple[list[Scored], list[Scored]],
) -> None:
    plain = next(one for one in trained[1] if one.manifest.task == "fe")
    count = len(plain.values)
    sure = np.tile([0.05, 0.9, 0.05], (count, 1))
    gated = Scored(plain.manifest, plain.values, sure, ("contempt", "sadness", "happiness"), plain.stretches)
    assert set(frame_classes(gated, Smoothing(gate=0.8), VOCABULARY)) == {VOCABULARY.expressions.index("sadness")}
    assert np.array_equal(frame_classes(gated, Smoothing(gate=1.0), VOCABULARY), plain.values.argmax(1))
    unsure = Scored(plain.manifest, plain.values, np.full((count, 3), 1 / 3), gated.classes, plain.stretches)
    assert np.array_equal(frame_classes(unsure, Smoothing(gate=0.8), VOCABULARY), plain.values.argmax(1))
    other = np.tile([0, 0, 0, 1.0], (count, 1))
    only = Scored(plain.manifest, other, sure, gated.classes, plain.stretches)
    table = tables([only], Smoothing(gate=0.8), VOCABULARY)["mtl@fe"]
    assert isinstance(table, ExpressionTable)
    assert (table.probabilities[:, 3] == 0).all()


def test_onnx_and_timm_embeddings_of_one_efficientnet_agree(tmp_path: Path) -> None:
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        whole = timm.create_model("tf_efficientnet_b0", num_classes=8).eval()
    path = tmp_path / "e.onnx"
    torch.onnx.export(whole, torch.zeros(1, 3, SIZE, SIZE), str(path), dynamo=False)
    frames = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    onnx = OnnxEncoder(EncoderConfig(onnx=str(path), image_size=SIZE))
    own = TimmEncoder(EncoderConfig(timm="tf_efficientnet_b0", pretrained=False, image_size=SIZE), seed=1)
    own.backbone.net.load_state_dict({k: v for k, v in whole.state_dict().items() if not k.startswith("classifier")})
    found, expected = onnx(frames), own(frames)
    assert onnx.width == own.width == 1280
    assert np.abs(found.features - expected.features).max() < 1e-4
    assert found.scores is not None
    assert np.abs(found.scores - expected.features @ whole.classifier.weight.detach().numpy().T).max() < 1e-3
    with pytest.raises(ValueError, match=r"takes input \[1, 3, 64, 64\]; encoder.image_size asks for \[N, 3, 96, 96\]"):
        OnnxEncoder(EncoderConfig(onnx=str(path), image_size=96))
    with pytest.raises(ValueError, match=r"gives 8 scores, encoder.classes names 9"):
        OnnxEncoder(EncoderConfig(onnx=str(path), image_size=SIZE, classes=tuple("abcdefghi")))


def test_an_encoder_that_is_none_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x00\x01nothing")
    with pytest.raises(ValueError, match=r"broken.onnx: (not an ONNX file|an ONNX file without a graph)"):
        make_encoder(EncoderConfig(onnx=str(broken)))
    with pytest.raises(ValueError, match=r"gone.onnx: cannot read the encoder"):
        encoder_key(EncoderConfig(onnx=str(tmp_path / "gone.onnx")), 1)
    with pytest.raises(ValueError, match="'efficientnot' is not a timm model"):
        make_encoder(EncoderConfig(timm="efficientnot"))
    with pytest.raises(ValueError, match="exactly one of timm, model and onnx; got none"):
        EncoderConfig()


class Counting:
    """An encoder whose features are the mean colours of a frame."""

    preprocessing = Preprocessing(image_size=SIZE)
    classes: tuple[str, ...] = ("happiness", "sadness")
    width = 3

    def __call__(self, frames: np.ndarray) -> Encoded:
        return Encoded(frames.mean((1, 2), dtype=np.float32), np.ones((len(frames), 2), np.float32))


def test_features_are_cached_once_and_found_by_record(
    tiny_corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_FRAMES", 100)
    manifest = read_corpus("bp4d", tiny_corpora / "bp4d").manifest
    place, encoder = str(tmp_path / "features"), Counting()
    parts = cache.parts_of(manifest)
    assert sum(part.last - part.first for part in parts) == len(manifest) > len(parts) > 1
    cache.encode_part(manifest, place, parts[0], encoder, batch=7)
    assert cache.missing(place, manifest) == parts[1:]
    assert not cache.is_done(place)
    for part in cache.missing(place, manifest):
        cache.encode_part(manifest, place, part, encoder, batch=7)
    cache.finish(place, manifest, encoder)
    found = cache.read_features(place, manifest)
    assert found.features.dtype == np.float16
    assert found.scores is not None
    assert found.features.shape == (manifest.lengths.sum(), 3)
    book = Book.of({"bp4d": (manifest, found)})
    some = manifest.take([4, 1])
    frames = open_frames(some[1], some.root).read(range(some[1].length))
    expected = center(frames, encoder.preprocessing).mean((1, 2), dtype=np.float32)
    assert np.allclose(book.rows(some).features[some[0].length :], expected, atol=0.1)
    with pytest.raises(ValueError, match=r"the corpus has .* delete the folder"):
        cache.read_features(place, Manifest(manifest.root, "bp4d", "au", manifest.labels, manifest.table[:-1]))


def test_video_features_are_four_statistics_of_unit_length_and_tell_classes_apart() -> None:
    generator = np.random.default_rng(0)
    video = generator.normal(size=(20, 5))
    stat = np.concatenate([video.mean(0), video.std(0), video.min(0), video.max(0)])
    assert video_features(video) == pytest.approx(stat / np.linalg.norm(stat), abs=1e-6)
    labels = [0, 1] * 15
    videos = [generator.normal(0.8 * label, 1, (12, 5)) for label in labels]
    model = video_classifier(videos, labels)
    others = [generator.normal(0.8 * label, 1, (12, 5)) for label in labels]
    assert model.score(np.stack([video_features(one) for one in others]), labels) > 0.8
    with pytest.raises(ValueError, match="videos of 1 class"):
        video_classifier(videos[:2], [1, 1])
    with pytest.raises(ValueError, match="without frames"):
        video_features(np.zeros((0, 5)))


def test_recipes_build_and_a_wrong_name_is_told() -> None:
    for name in FRAME_RECIPES:
        assert FrameRun.model_validate_json(frame_recipe(name).model_dump_json()) == frame_recipe(name)
    with pytest.raises(OverrideError, match="unknown recipe 'abaw_fram'; did you mean 'abaw_frame'"):
        frame_recipe("abaw_fram")
    assert frame_recipe("abaw_frame").corpora[0].options == {"other": True}


def test_a_run_says_where_what_serves_is_not_what_was_judged() -> None:
    assert list(_notes("runs/mine", Smoothing(gate=1.0), "mine-1")) == []
    (gated,) = _notes("runs/mine", Smoothing(gate=0.8), "mine-1")
    assert "gate at 0.8; the model answers without it" in gated
    (onnx,) = _notes("runs/mine", Smoothing(gate=0.8), None)
    assert "runs/mine/heads.safetensors" in onnx
    assert "not served" in onnx


@pytest.mark.ray
def test_a_run_encodes_once_trains_judges_and_serves_as_any_model(ray_cluster: None, tmp_path: Path) -> None:
    from ssm.inference import Predictor
    from ssm_platform.frames.running import run_frames

    changes = {"storage": str(tmp_path), "corpora.affwild2_mtl.root": str(tmp_path / "mtl")}
    write_corpus("affwild2_mtl", tmp_path / "mtl", PRESETS["tiny"], 1)
    run = override(frame_recipe("abaw_frame_tiny"), changes)
    result = run_frames(run)
    assert {one.corpus for one in (*result.evaluation.au, *result.evaluation.fe, *result.evaluation.va)} == {
        f"affwild2_mtl@{task}" for task in ("au", "fe", "va")
    }
    assert set(result.videos) == {"affwild2_mtl@fe"}
    assert 0 <= result.videos["affwild2_mtl@fe"] <= 1
    written = sorted(path.stat().st_mtime_ns for path in tmp_path.glob("features/*/*.npy"))
    predictor = Predictor.from_pretrained(tmp_path / run.name / "model")
    frames = np.random.default_rng(0).integers(0, 256, (9, SIZE, SIZE, 3), dtype=np.uint8)
    found = predictor.predict(frames)
    assert found.affect is not None
    assert found.affect.shape == (9, 2)
    assert "other" in predictor.model.vocabulary.expressions
    again = run_frames(run)
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.glob("features/*/*.npy")) == written
    assert again.version == result.version, "the same run gives the same model"
