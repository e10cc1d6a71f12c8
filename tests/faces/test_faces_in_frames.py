"""YuNet, found or refused by digest; what its points give: pose, level eyes, quality, and ids that outlive a cut."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants
from numpy.typing import NDArray

from ssm_platform.faces import hub, settings
from ssm_platform.faces.detectors import Detection, HaarDetector, YuNetDetector
from ssm_platform.faces.embedding import SFace
from ssm_platform.faces.hub import YUNET, HubFile, NoModel, find
from ssm_platform.faces.look import look_at, pose
from ssm_platform.faces.settings import FaceSettings, decided, make_detector, resolved
from ssm_platform.faces.squares import crop, roll_of, square_of
from ssm_platform.faces.tracker import track
from ssm_platform.media.images import read_image
from ssm_platform.media.video import TimedFrame, open_video

FILE = HubFile("owner/faces", "net.onnx", hashlib.sha256(b"the right one").hexdigest(), "detection.model")


@pytest.fixture
def yunet(shared_data: Path) -> Path:
    return shared_data / "face_detection_yunet_2026may.onnx"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a file lies in a hub cache of our own; the hub itself is switched off."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "models--owner--faces"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    return folder / "snapshots" / "abc" / "net.onnx"


def found_in(cache: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        real = huggingface_hub.try_to_load_from_cache
        patch.setattr(
            huggingface_hub, "try_to_load_from_cache", lambda *names: real(*names, cache_dir=cache.parents[3])
        )
        return find(FILE)


def test_a_file_of_the_hubs_cache_is_taken_where_its_digest_is_known(cache: Path) -> None:
    cache.write_bytes(b"the right one")
    assert found_in(cache) == cache


def test_a_stale_or_poisoned_file_in_the_cache_is_refused_by_digest(cache: Path) -> None:
    cache.write_bytes(b"something else")
    wrong = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(
        NoModel, match=rf"net\.onnx: not the file this version knows \(SHA-256 {wrong}\).*HF_HUB_OFFLINE"
    ):
        found_in(cache)


def test_a_hub_that_gives_another_file_is_not_believed(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "fetched.onnx").write_bytes(b"poison")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(tmp_path / "fetched.onnx"))
    with pytest.raises(
        NoModel, match=rf"SHA-256 {hashlib.sha256(b'poison').hexdigest()}, this version knows {FILE.sha256}"
    ):
        found_in(cache)


def test_a_hub_that_does_not_answer_is_waited_for_a_bounded_time(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    asked = threading.Event()
    monkeypatch.setattr(hub, "WAIT_S", 0.2)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: asked.wait(30))
    with pytest.raises(NoModel, match=r"no answer within 0\.2 s"):
        found_in(cache)
    asked.set()


def test_without_yunet_the_cascade_is_used_and_one_line_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def absent(file: HubFile) -> Path:
        raise NoModel(f"nowhere: {file.mend}")

    monkeypatch.setattr(settings, "find", absent)
    settings._yunet.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert isinstance(make_detector(FaceSettings()), HaarDetector)
        assert resolved(FaceSettings()).detector == "haar"
    settings._yunet.cache_clear()
    assert len(caplog.records) == 1
    assert f"hf download {YUNET.repository} {YUNET.name}" in caplog.text
    with pytest.raises(ValueError, match="nowhere"):
        make_detector(FaceSettings(detector="yunet"))


def test_with_yunet_at_hand_it_is_the_default(monkeypatch: pytest.MonkeyPatch, yunet: Path) -> None:
    monkeypatch.setattr(settings, "find", lambda file: yunet)
    settings._yunet.cache_clear()
    assert isinstance(make_detector(FaceSettings()), YuNetDetector)
    assert decided(FaceSettings()) == FaceSettings(detector="yunet")
    assert resolved(FaceSettings()).model == yunet
    settings._yunet.cache_clear()


def test_a_network_that_is_no_sface_is_named_with_its_digest(tmp_path: Path, yunet: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a network")
    for wrong in (tmp_path / "text.onnx", yunet):
        with pytest.raises(ValueError, match=rf"SHA-256 is {hashlib.sha256(wrong.read_bytes()).hexdigest()}"):
            SFace(wrong)


def test_yunet_finds_everybody_in_a_photograph_and_nobody_where_nobody_is(shared_data: Path, yunet: Path) -> None:
    detect = YuNetDetector(yunet, smallest=0.05)
    image = read_image(shared_data / "faces" / "multi_face.jpg")
    assert len(detect(image)) == 5
    frames = open_video(shared_data / "faces" / "no_face.mp4").frames(stop=40)
    assert not any(detect(frame.image) for frame in frames)


def test_both_detectors_give_the_same_square_of_a_real_face(shared_data: Path, yunet: Path) -> None:
    """So a model trained on crops of one is given the same crops by the other."""
    image = next(iter(open_video(shared_data / "faces" / "WolfgangLanger_Pexels.mp4").frames(stop=1))).image
    (by_haar, *_), (by_yunet, *_) = HaarDetector(0.1)(image), YuNetDetector(yunet, 0.1)(image)
    one, other = square_of(by_haar), square_of(by_yunet)
    assert other.side == pytest.approx(one.side, rel=0.1)
    assert np.hypot(one.x - other.x, one.y - other.y) < 0.08 * one.side


HEAD = np.array([[-31.5, -28, 26], [31.5, -28, 26], [0, 0, 0], [-26, 36, 24], [26, 36, 24]], np.float64)


def seen_at(yaw: float, pitch: float, roll: float, width: int = 640, height: int = 480) -> tuple[float, ...]:
    """Where a camera sees the five points of a head: turned about its height, then nodding, then leaning."""
    y, p, r = np.radians([yaw, pitch, roll])
    turn = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    nod = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    lean = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    placed = HEAD @ (lean @ turn @ nod).T + [20, -10, 600]
    return tuple((placed[:, :2] / placed[:, 2:] * max(width, height) + [width / 2, height / 2]).reshape(-1))


@pytest.mark.parametrize(
    ("yaw", "pitch", "roll"), [(0, 0, 0), (35, 0, 0), (-50, 0, 0), (0, 25, 0), (0, -20, 0), (0, 0, 30)]
)
def test_pose_is_that_of_the_head_that_was_projected(yaw: float, pitch: float, roll: float) -> None:
    assert pose(seen_at(yaw, pitch, roll), 640, 480) == pytest.approx((pitch, roll, yaw), abs=0.5)


def face_with(points: tuple[float, ...], score: float = 0.95) -> Detection:
    at = np.reshape(points, (5, 2))
    (left, top), (right, bottom) = at.min(0), at.max(0)
    return Detection(left - 30, top - 40, right - left + 60, bottom - top + 80, score, points)


def marked(points: tuple[float, ...]) -> NDArray[np.uint8]:
    """A textured picture with bright dots at the eyes."""
    image = np.random.default_rng(0).integers(60, 120, (480, 640, 3)).astype(np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 1)
    for x, y in np.reshape(points, (5, 2))[:2]:
        cv2.circle(image, (round(x), round(y)), 4, (255, 255, 255), -1)
    return np.asarray(image, np.uint8)


@pytest.mark.parametrize("roll", [-40, 0, 25])
@pytest.mark.parametrize("size", [64, 300])
def test_crops_by_the_eyes_have_level_eyes(roll: float, size: int) -> None:
    points = seen_at(0, 0, roll)
    assert roll_of(points) == pytest.approx(roll, abs=0.5)
    grey = crop(marked(points), face_with(points), 0.25, size, "eyes").min(axis=2)
    height, width = np.nonzero(grey > 200)
    left, right = width < size / 2, width >= size / 2
    slope = np.arctan2(height[right].mean() - height[left].mean(), width[right].mean() - width[left].mean())
    assert abs(np.degrees(slope)) < 2.5
    plain = crop(marked(points), face_with(points), 0.25, size)
    assert plain.shape == (size, size, 3)


def test_level_eyes_without_points_are_refused() -> None:
    with pytest.raises(ValueError, match="use face detector 'yunet'"):
        crop(np.zeros((100, 100, 3), np.uint8), Detection(10, 10, 50, 50, 1.0), alignment="eyes")


def test_quality_falls_with_blur_darkness_distance_and_turning_and_marks_what_is_below(
    shared_data: Path, yunet: Path
) -> None:
    image = next(iter(open_video(shared_data / "faces" / "WolfgangLanger_Pexels.mp4").frames(stop=1))).image
    face = YuNetDetector(yunet, 0.1)(image)[0]
    good = look_at(image, face, least=0.5)
    assert good.quality > 0.8
    assert good.usable
    worse = {
        "blur": look_at(np.asarray(cv2.GaussianBlur(image, (0, 0), 12), np.uint8), face, 0.5),
        "dark": look_at((image // 10).astype(np.uint8), face, 0.5),
        "small": look_at(image, Detection(face.x, face.y, 20, 20, 0.9), 0.5),
        "turned": look_at(image, face._replace(points=seen_at(70, 0, 0)), 0.5),
        "unsure": look_at(image, face._replace(score=0.3), 0.5),
    }
    for name, look in worse.items():
        assert look.quality < 0.5, name
        assert not look.usable, name


def test_a_face_seen_again_after_a_cut_keeps_its_id_where_an_embedder_knows_it() -> None:
    """Two people, a cut that moves both, and a third who is new; without an embedder ids end at the cut."""
    people = np.eye(3, 8, dtype=np.float32)
    before, after = {20: 0, 120: 1}, {60: 1, 150: 0, 10: 2}  # left edge of a box -> who

    def detect(image: NDArray[np.uint8], near: Sequence[Detection] = ()) -> list[Detection]:
        return [Detection(x, 20, 30, 30, 0.9, (0.0,) * 10) for x in (before if image[0, 0, 0] < 60 else after)]

    def embed(image: NDArray[np.uint8], face: Detection) -> NDArray[np.float32]:
        noise = np.random.default_rng(int(face.x)).normal(0, 0.1, 8)
        return np.float32(people[(before if image[0, 0, 0] < 60 else after)[round(face.x)]] + noise)

    def frames() -> Iterator[TimedFrame]:
        for number in range(120):
            yield TimedFrame(number, number / 25, np.full((100, 200, 3), number + 100 * (number >= 60), np.uint8))

    def ids(embedder: object) -> dict[int, int]:
        from ssm_platform.faces.tracker import FaceTracker

        tracker = FaceTracker(FaceSettings(detector="haar"), detect, embedder)  # type: ignore[arg-type]
        rows = [faces for frame in frames() for faces in tracker.push(frame.image)] + tracker.finish()
        assert all(len({face.face_id for face in faces}) == len(faces) for faces in rows)
        return {round(face.x): face.face_id for face in (*rows[30], *rows[100])}

    assert ids(embed) == {20: 0, 120: 1, 60: 1, 150: 0, 10: 2}
    apart = ids(None)
    assert apart[150] not in (0, 1), "without an embedder an id ends at the cut"
    assert apart[10] == 0, "and who sits where somebody sat is taken for them"


def test_points_travel_with_a_tracked_face(shared_data: Path, yunet: Path) -> None:
    frames = open_video(shared_data / "faces" / "WolfgangLanger_Pexels.mp4").frames(stop=20)
    for _, (face,) in track(frames, FaceSettings(model=yunet)):
        assert face.points is not None
        x, y = np.reshape(face.points, (5, 2)).T
        assert ((face.x < x) & (x < face.x + face.w) & (face.y < y) & (y < face.y + face.h)).all()
