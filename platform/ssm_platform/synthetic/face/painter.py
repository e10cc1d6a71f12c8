"""Fills the curves of a face with colour, back to front, at twice the frame's size with antialiased edges.

The eyes and the inside of the mouth are painted first; the skin is then filled around holes for them, so lids and lips
cut them off as real ones do. Knows no AU and no light; `relief` and `camera` add what is soft.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from ssm_platform.synthetic.face.identity import Colour, Identity

_BITS = 4  # subpixel bits of cv2's fixed-point coordinates
Fixed = NDArray[np.int32]
Image = NDArray[np.uint8]


def to_fixed(curves: Mapping[str, NDArray[np.float32]]) -> dict[str, Fixed]:
    """Pixel coordinates (T n 2) as cv2 takes them: pixel centres at whole numbers, `_BITS` fractional bits."""
    return {name: np.round((points - 0.5) * 2**_BITS).astype(np.int32) for name, points in curves.items()}


class Painter:
    """Paints one person in one outfit."""

    def __init__(self, face: Identity, cloth: Colour) -> None:
        self.face = face
        self.cloth = cloth
        self.skin = face.skin
        self.dark_skin = _toned(face.skin, 0.72)
        self.crease = _toned(face.skin, 0.62)
        self.lash = _toned(face.brow, 0.55)
        self.upper_lip = _toned(face.lip, 0.90)
        self.inside = _toned(face.lip, 0.30)

    def paint(self, canvas: Image, curves: Mapping[str, Fixed], frame: int, unit: float) -> None:
        """Paints frame `frame` over `canvas`; `unit` is the length of a face unit in canvas pixels."""
        now = {name: points[frame] for name, points in curves.items()}
        self._back(canvas, now)
        self._eyeballs(canvas, now, unit)
        self._inside_of_mouth(canvas, now)
        _fill(canvas, self.skin, now["outline"], now["eye_left"], now["eye_right"], now["mouth"])
        self._beard(canvas, now, unit)
        self._lips(canvas, now, unit)
        self._details(canvas, now, unit)
        if self.face.hair_style != "bald":
            self._hair(canvas, now, unit)
        if self.face.glasses is not None:
            self._glasses(canvas, now, unit)

    def head_mask(self, curves: Mapping[str, Fixed], frame: int, size: int) -> NDArray[np.float32]:
        """Where the head is (H W, 0..1) at half the canvas's size: what its light and shadow fall on."""
        mask = np.zeros((size, size), np.uint8)
        for name in ("outline", "hair_front") if self.face.hair_style != "bald" else ("outline",):
            cv2.fillPoly(mask, [curves[name][frame]], 255, cv2.LINE_AA, _BITS + 1)
        return np.asarray(mask / np.float32(255), np.float32)

    def _back(self, canvas: Image, now: Mapping[str, Fixed]) -> None:
        long_hair = self.face.hair_style in ("long", "bob")
        if long_hair:
            _fill(canvas, _toned(self.face.hair, 0.8), now["hair_back"])
        _fill(canvas, _toned(self.skin, 0.66), now["neck"])
        _fill(canvas, self.cloth, now["shoulders"])
        if not long_hair and self.face.hair_style != "bald":
            _fill(canvas, _toned(self.face.hair, 0.9), now["hair_back"])
        if not long_hair:
            _fill(canvas, _toned(self.skin, 0.86), now["ears_left"])
            _fill(canvas, _toned(self.skin, 0.86), now["ears_right"])

    def _eyeballs(self, canvas: Image, now: Mapping[str, Fixed], unit: float) -> None:
        radius = 0.094 * unit * self.face.eye_size
        for side in ("left", "right"):
            _fill(canvas, (226, 222, 216), now[f"eye_{side}"])
            x, y = (int(value) for value in now[f"iris_{side}"][0])
            _disc(canvas, _toned(self.face.iris, 0.6), x, y, radius)
            _disc(canvas, self.face.iris, x, y, 0.80 * radius)
            _disc(canvas, (14, 12, 12), x, y, 0.42 * radius)
            glint = round(0.35 * radius * 2**_BITS)
            _disc(canvas, (250, 250, 250), x - glint, y - glint, 0.20 * radius)

    def _inside_of_mouth(self, canvas: Image, now: Mapping[str, Fixed]) -> None:
        _fill(canvas, self.inside, now["mouth"])
        _fill(canvas, (186, 92, 96), now["tongue"])
        _fill(canvas, (232, 228, 218), now["teeth"])

    def _beard(self, canvas: Image, now: Mapping[str, Fixed], unit: float) -> None:
        """Hair on the lower face, its edges soft, through a mask."""
        if self.face.beard <= 0:
            return
        mask = np.zeros(canvas.shape[:2], np.uint8)
        for name in ("beard", "moustache") if self.face.moustache else ("beard",):
            cv2.fillPoly(mask, [now[name]], round(255 * self.face.beard), cv2.LINE_AA, _BITS)
        mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), 0.04 * unit), np.uint8)
        cv2.fillPoly(mask, [now["mouth"]], 0, cv2.LINE_8, _BITS)
        share = mask[..., None].astype(np.float32) / 255
        canvas[:] = canvas + (np.array(_toned(self.face.hair, 0.9), np.float32) - canvas) * share

    def _lips(self, canvas: Image, now: Mapping[str, Fixed], unit: float) -> None:
        _fill(canvas, self.upper_lip, now["upper_lip"])
        _fill(canvas, self.face.lip, now["lower_lip"])
        _line(canvas, self.inside, now["press_line"], 0.012 * unit, only_if_closed=now["mouth"])

    def _details(self, canvas: Image, now: Mapping[str, Fixed], unit: float) -> None:
        for side in ("left", "right"):
            _fill(canvas, _toned(self.skin, 0.38), now[f"nostril_{side}"])
            _line(canvas, self.crease, now[f"crease_line_{side}"], 0.014 * unit)
            _line(canvas, self.dark_skin, now[f"low_lash_line_{side}"], 0.016 * unit)
            _line(canvas, self.lash, now[f"lash_line_{side}"], 0.028 * unit)
            _fill(canvas, self.face.brow, now[f"brow_{side}"])

    def _hair(self, canvas: Image, now: Mapping[str, Fixed], unit: float) -> None:
        _fill(canvas, self.face.hair, now["hair_front"])
        strands = now["strands"].reshape(-1, 2, 2)
        for tone, some in ((0.80, strands[::2]), (1.16, strands[1::2])):
            width = max(1, round(0.022 * unit))
            cv2.polylines(canvas, list(some), False, _toned(self.face.hair, tone), width, cv2.LINE_AA, _BITS)

    def _glasses(self, canvas: Image, now: Mapping[str, Fixed], unit: float) -> None:
        assert self.face.glasses is not None
        for name in ("glass_left", "glass_right", "bridge_line"):
            _line(canvas, self.face.glasses, now[name], 0.026 * unit)


def _fill(canvas: Image, colour: Colour, *polygons: Fixed) -> None:
    """Fills by the even-odd rule: a second polygon inside the first is a hole."""
    cv2.fillPoly(canvas, list(polygons), colour, cv2.LINE_AA, _BITS)


def _disc(canvas: Image, colour: Colour, x: int, y: int, radius: float) -> None:
    cv2.circle(canvas, (x, y), round(radius * 2**_BITS), colour, -1, cv2.LINE_AA, _BITS)


def _line(canvas: Image, colour: Colour, points: Fixed, width: float, only_if_closed: Fixed | None = None) -> None:
    if only_if_closed is not None and cv2.contourArea(only_if_closed) > (1.5 * width * 2**_BITS) ** 2 * 12:
        return
    cv2.polylines(canvas, [points], False, colour, max(1, round(width)), cv2.LINE_AA, _BITS)


def _toned(colour: Colour, factor: float) -> Colour:
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)
