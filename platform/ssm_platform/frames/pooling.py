"""Labels of whole videos from frame features: mean, deviation, least and greatest of each, and a linear SVM on those.

STAT = [mean, std, min, max] over frames (4D), scaled to unit length; LinearSVC with C = 1.1, as published for AFEW and
VGAF. Letters: V videos, N frames of one, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

PENALTY = 1.1
"""C of the SVM."""


def video_features(features_ND: NDArray[Any]) -> NDArray[np.float32]:
    """STAT of one video (4D), of unit length."""
    frames = np.asarray(features_ND, np.float64)
    if not len(frames):
        raise ValueError("a video without frames has no features")
    stat = np.concatenate([frames.mean(0), frames.std(0), frames.min(0), frames.max(0)])
    return np.asarray(stat / max(float(np.linalg.norm(stat)), 1e-12), np.float32)


def video_classifier(videos: Sequence[NDArray[Any]], labels: Sequence[int], seed: int = 0) -> Any:
    """A fitted `sklearn.svm.LinearSVC` over the videos' STAT; ValueError for one class only."""
    from sklearn.svm import LinearSVC

    if len(set(labels)) < 2:
        raise ValueError(f"videos of {len(set(labels))} class: a classifier needs two")
    stats = np.stack([video_features(video) for video in videos])
    return LinearSVC(C=PENALTY, random_state=seed, max_iter=5000).fit(stats, np.asarray(labels))
