"""Which of the faces that were followed through a video are the main person."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ssm_platform.faces.tracker import TrackedFace


class MainFace:
    """Which faces are the main person: large, long in view, central; one at a time.

    A face weighs the sum over its frames of area times centrality (1 in the middle, 1/2 in a corner). The heaviest is
    the main one; others are the same person seen again if they never share a frame with those already taken.
    """

    def __init__(self) -> None:
        self._weights: dict[int, float] = {}
        self._together: set[tuple[int, int]] = set()

    def add(self, faces: Iterable[TrackedFace], height: int, width: int) -> None:
        """Count the faces of one frame of this size."""
        seen = sorted(faces)
        for face in seen:
            away = np.hypot((face.x + face.w / 2) / width - 0.5, (face.y + face.h / 2) / height - 0.5) / np.hypot(
                0.5, 0.5
            )
            weight = face.w * face.h / (height * width) * (1 - 0.5 * float(away))
            self._weights[face.face_id] = self._weights.get(face.face_id, 0.0) + weight
        self._together.update((a.face_id, b.face_id) for a in seen for b in seen if a.face_id < b.face_id)

    def ids(self) -> list[int]:
        """Ids of the main person's faces, heaviest first; empty where no face was seen."""
        taken: list[int] = []
        for face in sorted(self._weights, key=lambda face: (-self._weights[face], face)):
            if not any((min(face, other), max(face, other)) in self._together for other in taken):
                taken.append(face)
        return taken
