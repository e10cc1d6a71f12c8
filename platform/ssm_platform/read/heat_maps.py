"""Where a model looked for each AU, as pictures: per face a grid of heat maps over crops of what was read.

    maps = HeatMaps(reader)
    for result in read_opened(source, reader, options, seen=maps.see): ...
    maps.pictures()                            # face -> figure, of the faces in most frames

Which clip and frames are shown is `places`' choice. A map is shares of the patches; the more, the brighter and the less
of the face shows through.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ssm.labels import Vocabulary
from ssm_platform.base import part_path
from ssm_platform.faces import blurred
from ssm_platform.read.places import KeptClip, Places
from ssm_platform.read.windows import Clip, ClipAnswer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ssm_platform.read.model_reader import ModelReader

_ACROSS = 4
_MARKED = 4  # a map is in full colour from so many times an even share on; what looks everywhere stays dim


class HeatMaps:
    """Collects clips while a video is read, then draws."""

    def __init__(self, reader: ModelReader, blur: bool = False) -> None:
        """`blur`: the faces under the maps are made unrecognisable."""
        self._reader, self._blur, self._places = reader, blur, Places()

    def see(self, clip: Clip, answer: ClipAnswer) -> None:
        """Take in an answered clip."""
        self._places.see(clip, answer)

    def pictures(self) -> dict[int, Figure]:
        """A figure for each of the faces in most frames."""
        return {kept.clip.face_id: self._picture(kept) for kept in self._places.chosen()}

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

    def _picture(self, kept: KeptClip) -> Figure:
        clip = kept.clip
        found = kept.places(self._reader.where(clip.crops[None])[0]).aus
        crops, side = [clip.crops[place.frame - clip.start] for place in found], clip.crops.shape[1]
        if self._blur:
            crops = [blurred(crop, [(0, 0, side, side)]) for crop in crops]
        titles = [f"frame {place.frame}: {place.probability:.2f}" for place in found]
        maps = [place.shares for place in found]
        return grid(crops, maps, self._reader.description.vocabulary, titles, f"face {clip.face_id}")


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
