"""Faces over time: found, followed, bridged, told apart, cut out; and frames without a face say so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from ssm_platform.faces.detectors import Detection
from ssm_platform.faces.main_face import MainFace
from ssm_platform.faces.settings import FaceSettings, make_detector
from ssm_platform.faces.squares import crop
from ssm_platform.faces.tracker import FaceTracker, TrackedFace, track
from ssm_platform.media.images import read_image
from ssm_platform.media.video import TimedFrame, open_video

HAAR = FaceSettings(detector="haar")
Scene = Callable[[int], list[Detection]]


class Script:
    """A detector that finds what the scene says; the number of a frame is its first pixel pair."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.calls = scene, 0

    def __call__(self, image: NDArray[np.uint8], near: Sequence[Detection] = ()) -> list[Detection]:
        self.calls += 1
        return self.scene(int(image[0, 0, 0]) * 256 + int(image[0, 0, 1]))


def numbered(frames: int) -> Iterator[TimedFrame]:
    for number in range(frames):
        image = np.zeros((100, 200, 3), np.uint8)
        image[0, 0, :2] = divmod(number, 256)
        yield TimedFrame(number, number / 25, image)


def follow(scene: Scene, frames: int, **settings: int) -> tuple[list[tuple[TrackedFace, ...]], Script]:
    script = Script(scene)
    rows = [(frame.number, faces) for frame, faces in track(numbered(frames), FaceSettings(**settings), script)]
    assert [number for number, _ in rows] == list(range(frames))
    return [faces for _, faces in rows], script


def at(x: float, y: float = 20, side: float = 40) -> Detection:
    return Detection(x, y, side, side, 0.9)


def seen(rows: list[tuple[TrackedFace, ...]], face_id: int) -> list[int]:
    return [number for number, faces in enumerate(rows) if any(face.face_id == face_id for face in faces)]


def test_a_moving_face_is_detected_now_and_then_and_interpolated_between() -> None:
    rows, script = follow(lambda number: [at(number)], 101)
    assert script.calls == 21  # every fifth frame
    assert [len(faces) for faces in rows] == [1] * 101
    assert np.allclose([faces[0].x for faces in rows], range(101), atol=1.3)
    assert {faces[0].face_id for faces in rows} == {0}


def test_appearing_and_leaving_are_exact_to_the_frame() -> None:
    rows, _ = follow(lambda number: [at(50)] if 13 <= number <= 57 else [], 100)
    assert seen(rows, 0) == list(range(13, 58))
    assert [faces for number, faces in enumerate(rows) if not 13 <= number <= 57] == [()] * 55


def test_a_short_gap_is_bridged_and_a_long_one_is_marked() -> None:
    rows, _ = follow(lambda number: [] if 21 <= number <= 28 or 52 <= number <= 70 else [at(50)], 100)
    assert seen(rows, 0) == [*range(52), *range(71, 100)]  # the same face after the long gap


def test_a_face_seen_elsewhere_is_somebody_new() -> None:
    rows, _ = follow(lambda number: [at(10)] if number < 40 else [at(120)], 80)
    assert seen(rows, 0) == list(range(40))
    assert seen(rows, 1) == list(range(40, 80))


def test_two_people_keep_their_ids_while_they_move() -> None:
    rows, _ = follow(lambda number: [at(number), at(150 - number, y=50)][:: 1 if number % 2 else -1], 100)
    for first, second in rows:
        assert abs(first.y - 20) < 1 or abs(second.y - 20) < 1
    upper = {next(face.face_id for face in faces if face.y < 35) for faces in rows}
    assert len(upper) == 1
    assert {face.face_id for faces in rows for face in faces} == {0, 1}


def test_a_flicker_is_not_a_face() -> None:
    flickers = {30: [at(150)], 47: [at(150, y=55)], 48: [at(150, y=55)]}
    rows, _ = follow(lambda number: [at(50), *flickers.get(number, [])], 100)
    assert {face.face_id for faces in rows for face in faces} == {0}


@pytest.mark.parametrize("every", [1, 2, 5, 7])
@pytest.mark.parametrize("frames", [1, 2, 4, 6, 23])
def test_short_videos_need_fewer_detections(frames: int, every: int) -> None:
    rows, _ = follow(lambda number: [at(50)], frames, every=every)
    assert [len(faces) for faces in rows] == [1] * frames


def test_results_come_a_bounded_number_of_frames_later_and_memory_stays_flat() -> None:
    settings = FaceSettings()
    tracker = FaceTracker(settings, Script(lambda number: [at(number % 37), at(150)]))
    done = 0
    for pushed, frame in enumerate(numbered(2000), start=1):
        done += len(tracker.push(frame.image))
        assert pushed - done <= settings.lookahead
    held = sum(len(one.knots) for one in tracker._tracks)
    assert held < 60
    assert done + len(tracker.finish()) == 2000


def test_the_main_face_is_large_long_and_central_and_one_at_a_time() -> None:
    main = MainFace()
    for number in range(100):
        passer = [TrackedFace(1, 150, 10, 30, 30, 0.9)] if number < 60 else []
        subject = [TrackedFace(0, 60, 20, 50, 50, 0.9)] if number < 40 else [TrackedFace(2, 70, 20, 50, 50, 0.9)]
        main.add([*subject, *passer], 100, 200)
    assert main.ids() == [2, 0]  # face 0 is never beside face 2, so it may be the same person; the passer-by is not
    assert MainFace().ids() == []


def test_a_crop_is_a_square_with_margin_around_the_middle_of_the_box() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    image[30:50, 60:90] = 255
    square = crop(image, TrackedFace(0, 60, 30, 30, 20, 1.0), margin=0.5)
    assert square.shape == (60, 60, 3)
    rows, columns = np.nonzero(square[..., 0])
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (20, 40, 15, 45)
    assert crop(image, TrackedFace(0, 60, 30, 30, 20, 1.0), margin=0.5, size=32).shape == (32, 32, 3)


def test_a_crop_past_the_border_repeats_the_edge_and_keeps_the_place() -> None:
    image = np.tile(np.arange(100, dtype=np.uint8)[None, :, None], (80, 1, 3))
    square = crop(image, TrackedFace(0, 80, 60, 40, 40, 1.0), margin=0.0)
    assert square.shape == (40, 40, 3)
    assert np.array_equal(square[0, :, 0], [*range(80, 100), *[99] * 20])
    far = crop(image, TrackedFace(0, 500, 500, 40, 40, 1.0), margin=0.0)
    assert far.shape == (40, 40, 3)


def test_haar_follows_one_person_through_a_real_video(shared_data: Path) -> None:
    path = shared_data / "faces" / "WolfgangLanger_Pexels.mp4"
    rows = [faces for _, faces in track(open_video(path).frames(stop=150), HAAR)]
    assert all(len(faces) == 1 for faces in rows)  # a hand before the mouth from about frame 60
    centres = np.array([(face.x + face.w / 2, face.y + face.h / 2) for (face,) in rows])
    assert np.abs(np.diff(centres, axis=0)).max() < 8  # pixels of 640: no jumps
    assert {face.face_id for (face,) in rows} == {0}


def test_haar_marks_where_a_real_face_has_left(shared_data: Path) -> None:
    path = shared_data / "faces" / "face_noface.mov"
    rows = [faces for _, faces in track(open_video(path).frames(stop=110), HAAR)]
    assert all(rows[:72])
    assert not any(rows[72:])  # the picture goes black at frame 72


def test_haar_finds_nobody_where_nobody_is(shared_data: Path) -> None:
    assert not any(faces for _, faces in track(open_video(shared_data / "faces" / "no_face.mp4").frames(), HAAR))


def test_haar_finds_several_people_in_a_photograph(shared_data: Path) -> None:
    image = read_image(shared_data / "faces" / "multi_face.jpg")
    tracker = FaceTracker(FaceSettings(detector="haar", side=1000))
    tracker.push(image)
    (faces,) = tracker.finish()
    people = [(370, 295), (480, 258), (578, 365), (735, 352)]  # the fifth, with sunglasses, is beyond this cascade
    assert len(faces) == 4
    for x, y in people:
        assert sum(face.x < x < face.x + face.w and face.y < y < face.y + face.h for face in faces) == 1


def test_settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="max_gap 3 < every 5"):
        FaceSettings(max_gap=3)
    with pytest.raises(ValidationError, match="remember 12 < lookahead 15"):
        FaceSettings(remember=12)
    with pytest.raises(ValidationError, match="takes no model"):
        FaceSettings(detector="haar", model=Path("yunet.onnx"))
    with pytest.raises(ValidationError, match="identity 'sface'"):
        FaceSettings(detector="haar", identity="sface")
    with pytest.raises(ValidationError, match="only identity 'sface'"):
        FaceSettings(embedding=Path("sface.onnx"))
    with pytest.raises(ValidationError):
        FaceSettings(nth=3)  # type: ignore[call-arg]


def test_a_yunet_model_that_is_missing_or_no_model_is_named(tmp_path: Path) -> None:
    assert FaceSettings(model=Path("yunet.onnx")).model == Path.cwd() / "yunet.onnx", "workers stand elsewhere"
    with pytest.raises(ValueError, match=r"absent\.onnx: no such file"):
        make_detector(FaceSettings(detector="yunet", model=tmp_path / "absent.onnx"))
    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(
        ValueError, match=r"text\.onnx: OpenCV cannot use it.*SHA-256 is [0-9a-f]{64}, that of face_detection_yunet"
    ):
        make_detector(FaceSettings(detector="yunet", model=tmp_path / "text.onnx"))


def write_yunet(path: Path) -> Path:
    """A network with YuNet's inputs and outputs that takes red cells of 32 pixels for faces of 48: what OpenCV runs is
    real, and YuNet's own weights cannot be passed on."""
    from onnx import TensorProto, helper, numpy_helper, save_model

    nodes, constants, outputs = [], [], []
    for stride in (8, 16, 32):
        red = np.zeros((1, 3, stride, stride), np.float32)
        red[:, 2] = 1 / (255 * stride**2)  # OpenCV hands over BGR
        large = stride == 32
        heads = {
            "cls": (red * large, [0]),
            "obj": (red * large, [0]),
            "bbox": (np.zeros((4, 3, stride, stride), np.float32), [0, 0, np.log(1.5), np.log(1.5)]),
            "kps": (np.zeros((10, 3, stride, stride), np.float32), [0] * 10),
        }
        for head, (weight, bias) in heads.items():
            name = f"{head}_{stride}"
            values = (weight, np.array(bias, np.float32), np.array([1, -1, len(bias)]))
            inputs = [f"{name}.weight", f"{name}.bias", f"{name}.shape"]
            constants += [numpy_helper.from_array(*pair) for pair in zip(values, inputs, strict=True)]
            nodes += [
                helper.make_node("Conv", ["input", *inputs[:2]], [f"{name}.map"], strides=[stride] * 2),
                helper.make_node("Transpose", [f"{name}.map"], [f"{name}.last"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"{name}.last", inputs[2]], [name]),
            ]
            shape = [1, (640 // stride) ** 2, len(bias)]
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 640, 640])
    graph = helper.make_graph(nodes, "yunet", [image], outputs, constants)
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8), path)
    return path


def test_a_yunet_network_runs_in_opencv_and_its_rows_become_detections(tmp_path: Path) -> None:
    detect = make_detector(FaceSettings(detector="yunet", model=write_yunet(tmp_path / "yunet.onnx")))
    image = np.zeros((200, 300, 3), np.uint8)  # no multiple of 32: OpenCV pads it
    assert detect(image) == []
    image[64:96, 96:128, 0] = 255
    image[96:128, 224:256, 0] = 200
    image[0:32, 0:32, 2] = 255  # blue is no face: the channels arrive in the order that YuNet was trained on
    first, second = detect(image)
    assert (first.x, first.y, first.w, first.h) == pytest.approx((96 - 24, 64 - 24, 48, 48), abs=1e-3)
    assert (second.x, second.y) == pytest.approx((224 - 24, 96 - 24), abs=1e-3)
    assert (first.score, second.score) == pytest.approx((1.0, 200 / 255), abs=1e-3)
    wide = np.zeros((600, 900, 3), np.uint8)
    wide[64:96, 96:128, 0] = 255
    assert detect(wide) == [], "smaller than a tenth of the image"


def test_a_video_of_one_frame_has_its_face(shared_data: Path) -> None:
    path = shared_data / "faces" / "WolfgangLanger_Pexels.mp4"
    assert open_video(path).facts.frames == 472
    ((_, faces),) = track(open_video(path).frames(stop=1), HAAR)
    assert len(faces) == 1
