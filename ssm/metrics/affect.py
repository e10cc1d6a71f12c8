"""Valence and arousal: concordance (CCC), correlation (PCC), RMSE, sign agreement (SAGR), from sums that join exactly.

    CCC = 2 s_xy / (s_x^2 + s_y^2 + (mx - my)^2),   1 - CCC = mean((x - y)^2) / (mean(x^2) + mean(y^2) - 2 mx my)

with population moments over all labelled frames of a split joined, never a mean over videos. Values are rounded to
2^-18 (4e-6), so the sums are whole numbers: chunks and workers in any order give the same bits. What is not defined is
nan: CCC and PCC where labels are constant, PCC of a constant prediction. Letters: N frames, S subjects, x predictions,
y labels; `...` any leading dimensions; the last ones are (2 dimensions, `AFFECT_SUMS`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssm.metrics.affect_predictions import AffectTable
from ssm.metrics.figures import macro
from ssm.metrics.intervals import Estimate, Measure, Values, plain_interval, share_interval

AFFECT_SUMS = ("frames", "x", "y", "xx", "yy", "xy", "agreeing")
"""What is summed over the labelled frames of a dimension."""

_GRID = 2**18
_FLAT = 1e-12  # a variance below this is that of a constant, whatever rounding made of it

Sums = NDArray[np.int64]


@dataclass(frozen=True)
class AffectFigures:
    """Everything reported of one corpus; each figure is of valence and of arousal (2), `mean_ccc` of both."""

    frames: NDArray[np.int64]  # labelled
    subjects: int
    ccc: Estimate
    pcc: Estimate
    rmse: Estimate
    sagr: Estimate
    mean_ccc: Estimate  # scalar: P of the ABAW challenges


def affect_sums(predictions: NDArray[Any], labels: NDArray[Any]) -> Sums:
    """Sums (2 7) over frames (N 2); a frame whose label is nan counts nowhere in that dimension."""
    return np.asarray(_terms(predictions, labels).sum(0), np.int64)


def sums_by_subject(table: AffectTable) -> Sums:
    """The sums of each subject of a table (S 2 7)."""
    found = np.zeros((len(table.subjects), 2, len(AFFECT_SUMS)), np.int64)
    np.add.at(found, table.subject, _terms(table.predictions, table.labels))
    return found


def ccc(sums: NDArray[Any]) -> Values:
    """(... 2 7) -> concordance (... 2); nan without labels and where they are constant."""
    m = _Moments.of(sums)
    return np.where(m.y_varies, _ratio(2 * m.xy, m.xx + m.yy + (m.x - m.y) ** 2), np.nan)


def mean_ccc(sums: NDArray[Any]) -> Values:
    """(... 2 7) -> mean concordance of the dimensions where it is defined (...)."""
    return macro(ccc(sums))


def pcc(sums: NDArray[Any]) -> Values:
    """(... 2 7) -> Pearson's correlation (... 2); nan where either side is constant."""
    m = _Moments.of(sums)
    return np.where(m.x_varies & m.y_varies, _ratio(m.xy, np.sqrt(m.xx * m.yy)), np.nan)


def rmse(sums: NDArray[Any]) -> Values:
    """(... 2 7) -> root of the mean squared error (... 2); nan without labels."""
    m = _Moments.of(sums)
    return np.asarray(np.sqrt(np.maximum(m.xx + m.yy - 2 * m.xy + (m.x - m.y) ** 2, 0)), np.float64)


def sagr(sums: NDArray[Any]) -> Values:
    """(... 2 7) -> share of frames on which prediction and label have one sign, 0 being one of its own (... 2)."""
    counts = np.asarray(sums, np.float64)
    return _ratio(counts[..., 6], counts[..., 0])


def affect_figures(table: AffectTable) -> AffectFigures:
    """All figures with intervals over subjects; those of CCC and PCC are on Fisher's scale, so they stay in [-1, 1]."""
    sums = sums_by_subject(table)
    return AffectFigures(
        frames=sums.sum(0)[:, 0],
        subjects=len(table.subjects),
        ccc=correlation_interval(sums, ccc),
        pcc=correlation_interval(sums, pcc),
        rmse=plain_interval(sums, rmse, least=0.0),
        sagr=share_interval(sums, sagr),
        mean_ccc=correlation_interval(sums, mean_ccc),
    )


def correlation_interval(sums: Sums, measure: Measure) -> Estimate:
    """Interval of a figure in [-1, 1], on Fisher's scale: logit((1 + r) / 2) = 2 artanh(r). `sums` is (S 2 7)."""
    share = share_interval(sums, lambda total: (measure(total) + 1) / 2)
    value, low, high = (2 * bound - 1 for bound in (share.value, share.low, share.high))
    return replace(share, value=value, low=low, high=high)


@dataclass(frozen=True)
class _Moments:
    """Means of x and y, and population (co)variances, each (... 2); nan without frames."""

    x: Values
    y: Values
    xx: Values
    yy: Values
    xy: Values

    @classmethod
    def of(cls, sums: NDArray[Any]) -> _Moments:
        n, x, y, xx, yy, xy, _ = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
        x, y = _ratio(x, n * _GRID), _ratio(y, n * _GRID)
        xx, yy, xy = (_ratio(total, n * _GRID**2) for total in (xx, yy, xy))
        return cls(x, y, np.maximum(xx - x * x, 0), np.maximum(yy - y * y, 0), xy - x * y)

    @property
    def x_varies(self) -> NDArray[np.bool_]:
        return self.xx > _FLAT

    @property
    def y_varies(self) -> NDArray[np.bool_]:
        return self.yy > _FLAT


def _terms(predictions: NDArray[Any], labels: NDArray[Any]) -> Sums:
    """What each frame adds (N 2 7)."""
    truth = np.asarray(labels, np.float64)
    known = ~np.isnan(truth)
    x = np.where(known, np.rint(np.asarray(predictions, np.float64) * _GRID), 0).astype(np.int64)
    y = np.where(known, np.rint(np.nan_to_num(truth) * _GRID), 0).astype(np.int64)
    agree = known & (np.sign(x) == np.sign(y))
    return np.stack([known.astype(np.int64), x, y, x * x, y * y, x * y, agree.astype(np.int64)], axis=-1)


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> Values:
    """part / whole; nan where there is nothing."""
    out = np.full(np.broadcast_shapes(np.shape(part), np.shape(whole)), np.nan)
    np.divide(part, whole, out=out, where=np.asarray(whole) > 0)
    return out
