"""Contact sheets for people: every AU at three intensities on one face, and many faces with many expressions.

python jobs/synthesize.py --contact-sheet docs/au_contact_sheet.png --people-sheet docs/synthetic_people.png
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ssm.labels import ACTION_UNITS, EXPRESSIONS
from ssm_platform.synthetic.dynamics import TOP
from ssm_platform.synthetic.face.camera import Scene, backdrop
from ssm_platform.synthetic.face.identity import Identity, draw_identity
from ssm_platform.synthetic.face.muscles import AU_ORDER, Motion
from ssm_platform.synthetic.face.pose import Pose
from ssm_platform.synthetic.face.render import render
from ssm_platform.synthetic.performance import FACE_SCALE, person, stream, wild_performance
from ssm_platform.synthetic.spec import WildSpec
from ssm_platform.synthetic.wild import draw_peaks

Image = NDArray[np.uint8]
LEVELS = (1.7, 3.3, 5.0)
_LABEL = 26  # pixels of the line under a picture


def model_face() -> Identity:
    """The person of the AU sheet: average, clean-shaven, with wrinkles that show."""
    count = len(AU_ORDER)
    drawn = draw_identity(np.random.default_rng(0))
    return replace(
        drawn, width=1.0, jaw=1.0, chin=0.0, forehead=0.0, eye_spacing=1.0, eye_size=1.05, eye_opening=1.0,
        eye_tilt=-0.01, brow_height=0.0, brow_thickness=0.95, brow_arch=1.0, brow_slant=0.0, nose_width=1.0,
        nose_length=0.0, mouth_width=1.0, mouth_height=0.0, corner_rest=0.0, upper_lip=1.0, lower_lip=1.0, age=0.12,
        wrinkling=1.0, skin=(230, 188, 158), lip=(190, 104, 102), hair=(70, 48, 34), brow=(64, 46, 36),
        iris=(84, 104, 120), hair_style="short", hair_volume=0.9, parting=0.3, beard=0.0, moustache=False,
        glasses=None, mobility=np.ones(count, np.float32), lopsided=np.zeros(count, np.float32),
    )  # fmt: skip


def still_frames(face: Identity, poses: Sequence[Mapping[int, float]], size: int) -> list[Image]:
    """Frontal pictures of `face`, one for each mapping of AU numbers to intensities (0-5)."""
    au = np.zeros((len(poses), 2, len(AU_ORDER)), np.float32)
    for row, shown in enumerate(poses):
        for number, intensity in shown.items():
            au[row, :, AU_ORDER.index(number)] = intensity / TOP
    count = len(poses)
    motion = Motion(au, np.zeros(count, np.float32), np.zeros((count, 2), np.float32))
    pose = Pose.of(np.zeros((count, 3)), np.full(count, FACE_SCALE), np.zeros((count, 2)))
    scene = Scene(background=backdrop(np.random.default_rng(3), size, 0.08), noise=0.0)
    return list(render(face, motion, pose, scene, size))


def au_sheet(size: int = 192) -> Image:
    """Each AU at three intensities with its FACS name, after the face at rest."""
    face = model_face()
    cells = [_captioned(still_frames(face, [{}], size) + _combinations(face, size), "at rest | 6+12+25 | 1+2+5+25+26")]
    for number, unit in ACTION_UNITS.items():
        pictures = still_frames(face, [{number: level} for level in LEVELS], size)
        cells.append(_captioned(pictures, f"{unit.code}  {unit.name}  {' / '.join(map(str, LEVELS))}"))
    return _tiled(cells, columns=3)


def people_sheet(size: int = 112, columns: int = 11, rows: int = 7, seed: int = 11) -> Image:
    """Different people in wild clips, a column for each expression, each at the middle of its clip."""
    strong = WildSpec(strength=1.15, blend=0.1)
    cells = []
    for row in range(rows):
        for column, expression in enumerate(EXPRESSIONS[:columns]):
            rng = stream(seed, "people", row, column)
            _, peaks = draw_peaks(rng, expression, EXPRESSIONS, strong)
            intensity = np.repeat(peaks[None].astype(np.float32), 3, axis=0)
            face = person(seed, "people", row * columns + column)
            frames = list(wild_performance(face, rng, intensity, 25.0, 0.7, size).frames())
            cells.append(_captioned([frames[1]], expression) if row == rows - 1 else frames[1])
    return _tiled(cells, columns)


def write_sheet(path: Path, sheet: Image) -> None:
    """Writes a sheet as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), np.ascontiguousarray(sheet[..., ::-1])):
        raise OSError(f"{path} could not be written")


def _combinations(face: Identity, size: int) -> list[Image]:
    return still_frames(face, [{6: 4, 12: 4.5, 25: 3.5}, {1: 4.5, 2: 4.5, 5: 4, 25: 4, 26: 4}], size)


def _captioned(pictures: Iterable[Image], text: str) -> Image:
    row = np.concatenate(list(pictures), axis=1)
    scale = 0.62 if row.shape[1] > 300 else 0.36
    line = np.full((_LABEL, row.shape[1], 3), 255, np.uint8)
    cv2.putText(line, text, (4, _LABEL - 8), cv2.FONT_HERSHEY_SIMPLEX, scale, (20, 20, 20), 1, cv2.LINE_AA)
    return np.concatenate([row, line], axis=0)


def _tiled(cells: Sequence[Image], columns: int) -> Image:
    rows = [np.concatenate(cells[first : first + columns], axis=1) for first in range(0, len(cells), columns)]
    return np.concatenate(rows, axis=0)
