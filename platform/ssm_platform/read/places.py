"""Where a model looked for each AU, as pictures: per face a grid of heat maps over crops of what was read.

    places = Places(reader)
    for result in read_opened(source, reader, options, seen=places.see): ...
    places.pictures()                          # face -> figure, of the faces in most frames

For readers that know places (`ModelDescription.places`). Of each face one clip is kept, the one in which most is seen
(the greatest sum over AUs of the highest probability), and read once more; each AU is shown in the frame of that clip
where it is likeliest. A map is shares of the patches; the more, the brighter and the less of the face shows through.
Letters: T frames, A AUs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ssm.labels import Vocabulary
from ssm_platform.base import part_path
from ssm_platform.faces import blurred
from ssm_platform.read.timeline import MOST_FACES
from ssm_platform.read.windows import Clip, ClipAnswer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ssm_platform.read.model_reader import ModelReader

_HELD = 4 * MOST_FACES  # faces whose clip is kept; the one in fewest frames makes room
_ACROSS = 4
_MARKED = 4  # a map is in full colour from so many times an even share on; what looks everywhere stays dim


@dataclass(frozen=True)
class _Kept:
    clip: Clip
    probability: NDArray[np.float32]  # T A
    seen: float


class Places:
    """Collects clips while a video is read."""

    def __init__(self, reader: ModelReader, blur: bool = False) -> None:
        """`blur`: the faces under the maps are made unrecognisable."""
        self._reader, self._blur = reader, blur
        self._kept: dict[int, _Kept] = {}
        self._frames: dict[int, int] = {}

    def see(self, clip: Clip, answer: ClipAnswer) -> None:
        """Take in an answered clip."""
        face, probability = clip.face_id, answer.au_probability[: clip.count]
        self._frames[face] = self._frames.get(face, 0) + clip.count
        seen = float(probability.max(0).sum())
        if face not in self._kept or seen > self._kept[face].seen:
            self._kept[face] = _Kept(clip, probability, seen)
        if len(self._kept) > _HELD:
            del self._kept[min(self._kept, key=lambda one: self._frames[one])]

    def pictures(self) -> dict[int, Figure]:
        """A figure for each of the faces in most frames."""
        faces = sorted(self._kept, key=lambda face: (-self._frames[face], face))[:MOST_FACES]
        return {face: self._picture(self._kept[face]) for face in sorted(faces)}

    def write(self, stem: Path) -> list[Path]:
        """`<stem>.face0.where.png`, ...; no file where no face was found."""
        written = []
        for face, figure in self.pictures().items():
            path = stem.with_name(f"{stem.name}.face{face}.where.png")
            part = part_path(path, ".png")
            figure.savefig(part, dpi=110)
            part.replace(path)
            written.append(path)
        return written

    def _picture(self, kept: _Kept) -> Figure:
        where_TAhw = self._reader.where(kept.clip.crops[None])[0]
        frames = kept.probability.argmax(0)  # A
        side = kept.clip.crops.shape[1]
        crops = [kept.clip.crops[frame] for frame in frames]
        if self._blur:
            crops = [blurred(crop, [(0, 0, side, side)]) for crop in crops]
        aus = range(len(frames))
        maps = [where_TAhw[frames[au], au] for au in aus]
        titles = [f"frame {kept.clip.start + frames[au]}: {kept.probability[frames[au], au]:.2f}" for au in aus]
        return grid(crops, maps, self._reader.description.vocabulary, titles, f"face {kept.clip.face_id}")


def grid(
    crops: list[NDArray[np.uint8]],
    maps: list[NDArray[np.float32]],
    vocabulary: Vocabulary,
    notes: list[str],
    title: str,
) -> Figure:
    """A picture per AU: its map (h w) over its crop (S S 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    down = -(-len(crops) // _ACROSS)
    figure = Figure(figsize=(1.9 * _ACROSS, 2.2 * down + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels: Any = figure.subplots(down, _ACROSS, squeeze=False).flatten()
    for axes in panels:
        axes.set_axis_off()
    for axes, crop, shares, code, note in zip(panels, crops, maps, vocabulary.au_codes, notes, strict=False):
        extent = (0, crop.shape[1], crop.shape[0], 0)
        axes.imshow(crop.mean(-1), cmap="gray", vmin=0, vmax=255, extent=extent)
        strength = shares / max(float(shares.max()), _MARKED / shares.size)
        axes.imshow(
            strength, cmap="inferno", vmin=0, vmax=1, alpha=0.75 * strength, extent=extent, interpolation="bilinear"
        )
        axes.set_title(f"{code}, {note}", fontsize=8)
    figure.suptitle(f"{title}: where each action unit was looked for", fontsize=9)
    return figure
