"""Heat maps: the right clip and frames of the right faces, the square they cover, pictures, faces hidden in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from numpy.typing import NDArray
from serving_fixtures import save_model

from ssm.interface import Alignment, FaceCrop, Preprocessing
from ssm.labels import Vocabulary
from ssm_platform.faces import Square, TrackedFace, blurred
from ssm_platform.read.batch import Job, PredictSettings, predict_one
from ssm_platform.read.heat_maps import HeatMaps
from ssm_platform.read.model_reader import ModelReader
from ssm_platform.read.places import _HELD, Places
from ssm_platform.read.reader import Reader
from ssm_platform.read.rows import crops_of
from ssm_platform.read.timeline import MOST_FACES
from ssm_platform.read.windows import Clip, ClipAnswer, Sighting

T, SIDE = 3, 8


class Looking:
    """A reader of two AUs that looks at the place which a frame's pixels name."""

    def __init__(self) -> None:
        self.description = type("Description", (), {"vocabulary": Vocabulary(aus=(4, 12))})

    def where(self, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
        number = clips[:, :, 0, 0, 0].astype(int)  # B T
        return np.stack([np.eye(16, dtype=np.float32)[number + au].reshape(*number.shape, 4, 4) for au in (0, 1)], 2)


def clip(face: int, start: int, probability: list[list[float]]) -> tuple[Clip, ClipAnswer]:
    """Crops that are numbered 0 to T-1; the last one repeats where there are fewer answers."""
    crops = np.stack([np.full((SIDE, SIDE, 3), number, np.uint8) for number in range(T)])
    au = np.float32([*probability, *probability[-1:] * (T - len(probability))])
    seen = (Sighting(None, (0, 0, SIDE, SIDE), Square(SIDE / 2, SIDE / 2, SIDE)),) * len(probability)
    return Clip(start, face, start, len(probability), crops, seen), ClipAnswer(au, np.float32([1]), None)


def test_an_au_is_shown_where_it_is_likeliest_in_the_clip_that_shows_most() -> None:
    places = HeatMaps(Looking())  # type: ignore[arg-type]
    places.see(*clip(7, 0, [[0.2, 0.1], [0.2, 0.1], [0.2, 0.1]]))
    places.see(*clip(7, 3, [[0.2, 0.9], [0.8, 0.1], [0.2, 0.1]]))
    places.see(*clip(7, 6, [[0.5, 0.5]]))
    (figure,) = places.pictures().values()
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == ["AU04, frame 4: 0.80", "AU12, frame 3: 0.90"]
    for axes, frame, place in zip(shown, (1, 0), (1, 1), strict=True):
        crop, shares = (image.get_array() for image in axes.images)
        assert (crop == frame).all()
        assert np.flatnonzero(shares) == [place]
        assert axes.images[0].get_extent() == axes.images[1].get_extent()


def test_faces_in_most_frames_are_chosen_and_few_clips_are_held() -> None:
    places = Places()
    for face in range(3 * _HELD):
        for number in range(1 + face % 5):
            places.see(*clip(face, number, [[0.2, 0.1]]))
    assert len(places._kept) == _HELD
    found = [kept.clip.face_id for kept in places.chosen()]
    assert (len(found), found) == (MOST_FACES, sorted(found))
    assert {face % 5 for face in found} == {4}


@pytest.mark.parametrize("alignment", ["none", "eyes"])
@pytest.mark.parametrize("resize", [None, 48])
def test_a_square_is_what_of_the_frame_the_model_reads(alignment: Alignment, resize: int | None) -> None:
    """In a picture whose colours are its coordinates, every pixel of the crop says where it is from."""
    size, (down, right) = 32, np.mgrid[0:240, 0:240]
    image = np.stack([right, down, down], 2).astype(np.uint8)
    leaning = (90.0, 110.0, 130.0, 130.0, 105.0, 130.0, 85.0, 145.0, 115.0, 160.0)  # of a head that leans to the right
    crop = FaceCrop(source="detected", margin=0.1, alignment=alignment)
    prepared = Preprocessing(image_size=size, resize=resize, crop=crop)
    (face,) = crops_of(image, [TrackedFace(0, 70, 80, 80, 100, 0.9, leaning)], prepared, 0.0)
    x, y, side, roll = face.square
    assert (roll > 20) == (alignment == "eyes")
    steps = ((np.arange(size) + 0.5) / size - 0.5) * side
    across, along = np.meshgrid(steps, steps)
    turn = np.radians(roll)
    expected = [x + across * np.cos(turn) - along * np.sin(turn), y + across * np.sin(turn) + along * np.cos(turn)]
    assert np.abs(face.crop[..., :2] + 0.5 - np.stack(expected, 2)).max() < 2


def test_pictures_are_written_beside_the_table_and_python_draws_the_same(
    face_frames: list[NDArray[np.uint8]], write_video: Callable[..., Path], tmp_path: Path
) -> None:
    """Of a model that knows places; nothing of another one. Under a blurred map no face is to be recognised."""
    folder = save_model(tmp_path / "model", 1, "hiva")
    video = write_video(tmp_path / "short.mp4", face_frames[:12])
    reader, job = ModelReader(folder, "cpu", threads=1), Job(str(video), "face.mp4")
    settings = PredictSettings(model=str(folder), plots=True)
    assert predict_one(job, tmp_path / "open", reader, settings).status == "done"
    assert predict_one(job, tmp_path / "hidden", reader, settings.model_copy(update={"blur": True})).status == "done"
    names = sorted(path.name for path in (tmp_path / "open").iterdir())
    assert names == ["face.mp4.csv", "face.mp4.face0.png", "face.mp4.face0.where.png", "face.mp4.json"]
    bare, hidden = (
        matplotlib.image.imread(tmp_path / name / "face.mp4.face0.where.png") for name in ("open", "hidden")
    )
    assert bare.shape == hidden.shape
    assert not np.array_equal(bare, hidden)
    python = Reader(folder, device="cpu", threads=1)
    crops = [
        [axes.images[0].get_array() for axes in python.where(video, blur=blur)[0].axes if axes.images]
        for blur in (False, True)
    ]
    assert len(crops[0]) == len(reader.description.vocabulary.aus)
    for crop, covered in zip(*crops, strict=True):
        side = crop.shape[0]
        expected = blurred(np.repeat(crop[..., None], 3, -1).round().astype(np.uint8), [(0, 0, side, side)])
        assert np.abs(np.asarray(covered) - expected[..., 0]).max() <= 2


def test_a_model_that_looks_at_no_places_is_refused_with_the_mend(model_folder: Path, face_video: Path) -> None:
    with pytest.raises(ValueError, match=r"looks at no places: train with \+hiva for heat maps"):
        Reader(model_folder, device="cpu", threads=1).where(face_video)
