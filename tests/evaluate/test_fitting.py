"""A rule fitted on labelled clips: as `fit_rule` finds it on the model's own answers, saved with the model, obeyed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pages import documented
from sklearn.metrics import f1_score

from jobs import fit_rule
from ssm.inference.predictor import Predictor
from ssm.interface.rules import AURule, DecisionRule
from ssm.labels.vocabulary import Vocabulary
from ssm.saved.folder import read_config
from ssm_platform.evaluate.fitting import _warmed, fit_model
from ssm_platform.media.frames import open_frames
from ssm_platform.media.video import open_video
from ssm_platform.read.reader import Reader
from ssm_platform.records.manifest import Manifest, Record

AUS = (6, 12)


@pytest.fixture(scope="module")
def predictor(model_folder: Path) -> Predictor:
    return Predictor.from_pretrained(model_folder, local_files_only=True)


def labels_from(probabilities: NDArray[np.float32]) -> NDArray[np.int8]:
    """Labels that a threshold of 0.4 quantiles from the top tells without error."""
    return (probabilities >= np.quantile(probabilities, 0.6, axis=0)).astype(np.int8)


def crops_manifest(video: Path, predictor: Predictor) -> Manifest:
    """The video's frames as if they were face crops, labelled by the model's own probabilities."""
    frames = np.stack([frame.image for frame in open_video(video).frames()])
    columns = predictor.model.vocabulary.au_columns(AUS)
    labels = labels_from(predictor.predict(frames).au_probability[:, columns])
    record = Record("a", video.name, "video", 0, len(frames), "S1", au_labels=labels, crop="owner")
    return Manifest.build(video.parent, "mine", "au", Vocabulary(aus=AUS), [record])


def test_thresholds_are_those_that_tell_the_labels_and_the_model_obeys_them(
    face_video: Path, model_folder: Path, predictor: Predictor, tmp_path: Path
) -> None:
    manifest = crops_manifest(face_video, predictor)
    fitted = fit_model(model_folder, [manifest], tmp_path / "fitted")
    assert set(fitted.after) == set(AUS)
    assert all(fitted.after[au] >= fitted.before[au] for au in AUS)
    saved = read_config(tmp_path / "fitted").facts
    assert saved.rule == fitted.rule
    assert saved.au_temperature == fitted.au_temperature
    assert saved.metrics == {}, "what was measured was measured with another rule"
    assert saved.data["fitted"]["manifests"] == {"mine": manifest.fingerprint}
    again = Predictor.from_pretrained(tmp_path / "fitted", local_files_only=True)
    frames = open_frames(manifest[0], manifest.root).read(range(manifest[0].length))
    columns = again.model.vocabulary.au_columns(AUS)
    before, answer = predictor.predict(frames), again.predict(frames)
    cooled = 1 / (1 + np.exp(-np.log(before.au_probability / (1 - before.au_probability)) / fitted.au_temperature))
    np.testing.assert_allclose(answer.au_probability, cooled, atol=1e-5)
    for au, column, labels in zip(AUS, columns, manifest.au_labels(0).T, strict=True):
        assert f1_score(labels, answer.au_present[:, column]) == pytest.approx(fitted.after[au], abs=0.02)
    others = [au for au in predictor.rule.aus if au not in AUS]
    kept = again.model.vocabulary.au_columns(others)
    np.testing.assert_array_equal(answer.au_present[:, kept], before.au_present[:, kept])


@pytest.mark.parametrize("temperature", [0.2, 0.7, 1.0, 20.0])
def test_a_rule_that_is_kept_decides_as_before_whatever_the_temperature(temperature: float) -> None:
    rule = DecisionRule(rules={6: AURule(threshold=0.9), 12: AURule(threshold=0.03, half_window=1, votes=2)})
    warmed = DecisionRule.model_validate_json(_warmed(rule, temperature).model_dump_json())
    probabilities = np.random.default_rng(0).uniform(0.01, 0.99, (500, 2))
    cooled = 1 / (1 + np.exp(-np.log(probabilities / (1 - probabilities)) / temperature))
    np.testing.assert_array_equal(warmed.apply(cooled), rule.apply(probabilities))
    extreme = _warmed(rule, 0.01)
    assert DecisionRule.model_validate_json(extreme.model_dump_json()) == extreme, "it can be saved and loaded"


def test_whole_frames_are_cut_as_serving_cuts_them(
    face_video: Path, model_folder: Path, predictor: Predictor, tmp_path: Path
) -> None:
    """A user's own video with AU labels by frame: its best F1 is the one that the probabilities of `Reader` give."""
    table = Reader(model_folder, device="cpu", threads=1).read(face_video)
    length = len(table)
    labels = (np.arange(length) % 20 < 10).astype(np.int8)[:, None].repeat(2, 1)
    record = Record("a", face_video.name, "video", 0, length, au_labels=labels)
    manifest = Manifest.build(face_video.parent, "mine", "au", Vocabulary(aus=AUS), [record])
    fitted = fit_model(model_folder, [manifest], tmp_path / "fitted")
    seen = table["success"].to_numpy() == 1
    for au in AUS:
        plain = table[f"AU{au:02d}"].to_numpy()[seen]
        best = max(f1_score(labels[seen, 0], plain >= threshold) for threshold in np.unique(plain))
        assert fitted.after[au] > best - 0.1, "a vote over time can only add to what a threshold reaches"


def test_the_command_takes_a_table_of_ones_own(
    face_video: Path,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "clip.mp4").write_bytes(face_video.read_bytes())
    lines = [f"clip.mp4,{frame},{frame % 2},{frame // 30}" for frame in range(60)]
    (tmp_path / "clips.csv").write_text("\n".join(["source,frame,AU06,AU12", *lines]))
    out = tmp_path / "fitted"
    _, script, _, clips, option, _ = documented("reading.md", "python jobs/fit_rule.py")
    monkeypatch.setattr("sys.argv", [script, str(model_folder), str(tmp_path / clips), option, str(out)])
    assert fit_rule.main() == 0
    said = capsys.readouterr().out
    assert "AU12: F1 " in said
    assert "these figures are of the same clips" in said
    assert read_config(out).facts.rule != read_config(model_folder).facts.rule
    monkeypatch.setattr("sys.argv", ["fit_rule", str(model_folder), "clips.txt", "--out", str(out)])
    with pytest.raises(SystemExit, match=r"clips\.txt: labelled clips are a manifest"):
        fit_rule.main()


def test_expression_labels_give_a_temperature_that_every_door_applies(
    face_video: Path, model_folder: Path, predictor: Predictor, tmp_path: Path
) -> None:
    names = predictor.model.vocabulary.expressions
    records = [
        Record(f"c{number}", face_video.name, "video", 10 * number, 10, expression=names[number % 3], crop="owner")
        for number in range(5)
    ]
    manifest = Manifest.build(face_video.parent, "mine", "fe", Vocabulary(expressions=names), records)
    fitted = fit_model(model_folder, [manifest], tmp_path / "fitted")
    assert fitted.expression_temperature is not None
    assert fitted.au_temperature is None
    assert fitted.rule == predictor.rule
    frames = open_frames(records[0], face_video.parent).read(range(10))
    before = predictor.predict(frames).expression.astype(float) ** (1 / fitted.expression_temperature)
    after = Predictor.from_pretrained(tmp_path / "fitted", local_files_only=True).predict(frames).expression
    np.testing.assert_allclose(after, before / before.sum(), atol=1e-5)


def test_clips_of_another_crop_are_told_and_unreadable_ones_left_out(
    face_video: Path, model_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = np.zeros((5, 2), np.int8)
    absent = Record("gone", "absent.mp4", "video", 0, 5, au_labels=labels, crop="owner")
    manifest = Manifest.build(face_video.parent, "mine", "au", Vocabulary(aus=AUS), [absent])
    with pytest.raises(ValueError, match="mine: no clip with a label the model has could be read"):
        fit_model(model_folder, [manifest], tmp_path / "fitted")
    assert "absent.mp4" in caplog.text
    foreign = Manifest.build(face_video.parent, "mine", "au", Vocabulary(aus=(20,)), [])
    with pytest.raises(ValueError, match="no clip with a label"):
        fit_model(model_folder, [foreign], tmp_path / "fitted")
