"""A model's association maps as a report shows them: beside their prior, and the truth where a corpus knows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssm import SSM
from ssm.labels import NEUTRAL
from ssm_platform.evaluate.scores import MapReport


def map_report(model: SSM, true: Mapping[tuple[str, int], float] | None = None) -> MapReport | None:
    """The maps of a model beside its prior, and the `true` P(AU | expression) where somebody knows it.

    Correlations are of the AU->FE map.
    """
    if model.mapping is None:
        return None
    labels = model.vocabulary
    learned, back = (np.asarray(each().detach().cpu()) for each in (model.mapping.au_to_fe, model.mapping.fe_to_au))
    prior = np.asarray(model.mapping.prior.detach().cpu())
    report: dict[str, Any] = {
        "expressions": labels.expressions,
        "aus": labels.aus,
        "prior": tuple(map(tuple, prior.tolist())),
        "learned": tuple(map(tuple, learned.tolist())),
        "learned_fe_to_au": tuple(map(tuple, back.T.tolist())),
    }
    if true:
        truth = np.array([[true.get((name, au), np.nan) for au in labels.aus] for name in labels.expressions])
        report["true"] = tuple(map(tuple, truth.tolist()))
        rows = [index for index, name in enumerate(labels.expressions) if name != NEUTRAL]
        report["prior_correlation"] = _correlation(prior[rows], truth[rows])
        report["learned_correlation"] = _correlation(learned[rows], truth[rows])
    return MapReport(**report)


def _correlation(one: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]]) -> float | None:
    known = ~np.isnan(other)
    if known.sum() < 3 or one[known].std() == 0 or other[known].std() == 0:
        return None
    return float(np.corrcoef(one[known], other[known])[0, 1])
