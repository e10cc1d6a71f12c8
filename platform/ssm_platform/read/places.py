"""Where a model looked for each AU of a face: in which clip, in which frame of it, at which patches. Draws nothing.

    places = Places()
    for result in read_opened(source, reader, options, seen=places.see): ...
    found = [kept.places(reader.where(kept.clip.crops[None])[0]) for kept in places.chosen()]

For readers that know places (`ModelDescription.places`). Of each face one clip is kept, the one in which most is seen
(the greatest sum over AUs of the highest probability), and read once more, by whoever has the model; each AU is looked
at in the frame of that clip where it is likeliest. What `heat_maps` draws and HTTP answers.
Letters: T frames, A AUs, h w rows and columns of patches.
"""

from __future__ import annotations

from dataclasses import dataclass

from ssm_platform.read.timeline import MOST_FACES
from ssm_platform.read.windows import Clip, ClipAnswer, Floats, Sighting

_HELD = 4 * MOST_FACES  # faces whose clip is kept; the one in fewest frames makes room


@dataclass(frozen=True)
class Place:
    """Where one AU was looked for, in the frame where it is likeliest."""

    frame: int
    seen: Sighting
    probability: float
    shares: Floats  # h w, of what the model looked at; they sum to 1


@dataclass(frozen=True)
class FacePlaces:
    """Where each AU of a face was looked for."""

    face_id: int
    aus: tuple[Place, ...]  # A


@dataclass(frozen=True)
class KeptClip:
    """The clip of a face in which most is seen."""

    clip: Clip
    probability: Floats  # T A, of its real frames
    seen: float

    def places(self, where_TAhw: Floats) -> FacePlaces:
        """By where the model looked in this clip."""
        likeliest = enumerate(self.probability.argmax(0).tolist())
        return FacePlaces(self.clip.face_id, tuple(self._place(au, frame, where_TAhw) for au, frame in likeliest))

    def _place(self, au: int, frame: int, where_TAhw: Floats) -> Place:
        probability = float(self.probability[frame, au])
        return Place(self.clip.start + frame, self.clip.sightings[frame], probability, where_TAhw[frame, au])


class Places:
    """Collects clips while a video is read: a few, whatever its length."""

    def __init__(self) -> None:
        self._kept: dict[int, KeptClip] = {}
        self._frames: dict[int, int] = {}

    def see(self, clip: Clip, answer: ClipAnswer) -> None:
        """Take in an answered clip."""
        face, probability = clip.face_id, answer.au_probability[: clip.count]
        self._frames[face] = self._frames.get(face, 0) + clip.count
        seen = float(probability.max(0).sum())
        if face not in self._kept or seen > self._kept[face].seen:
            self._kept[face] = KeptClip(clip, probability, seen)
        if len(self._kept) > _HELD:
            del self._kept[min(self._kept, key=lambda one: self._frames[one])]

    def chosen(self) -> list[KeptClip]:
        """The clips of the faces in most frames, by face."""
        faces = sorted(self._kept, key=lambda face: (-self._frames[face], face))[:MOST_FACES]
        return [self._kept[face] for face in sorted(faces)]
