"""From predictions to an honest `Evaluation`: rules fitted on validation, applied to test, with intervals and noise.

Protocols (method, section 9): under `clean` and `lodo` thresholds and vote rule are fitted on the validation sides,
under `published` on the test labels themselves. A rule is one per AU of the model, fitted over every corpus that labels
that AU. Labels that no training corpus has are not judged, whatever the test corpus says of them. Pure functions of
tables; `predictions` makes the tables, `assessment` writes what comes of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssm import SSM
from ssm.interface import THRESHOLDS, AURule, DecisionRule, fit_rule
from ssm.labels import NEUTRAL
from ssm.metrics import (
    AUTable,
    Estimate,
    ExpressionPredictions,
    ExpressionTable,
    au_figures,
    confusion_by_subject,
    expression_figures,
    f1_score,
    macro,
    ranked_area,
    scores_by_subject,
    unweighted_recall,
)
from ssm_platform.evaluate.predictions import Table
from ssm_platform.evaluate.scores import (
    AUScores,
    Evaluation,
    FEScores,
    Interval,
    MapReport,
    NoiseFloor,
    Provenance,
    Reliability,
)
from ssm_platform.runs import Protocol

Tables = Mapping[str, Table]
"""Predictions of one side by corpus."""

SPLITS = 40
"""Repeats of the half splits behind the noise floor."""


def evaluate(
    test: Tables, validation: Tables, protocol: Protocol, aus: Sequence[int], provenance: Provenance,
    maps: MapReport | None = None, unreadable: Sequence[str] = (),
) -> tuple[Evaluation, DecisionRule]:  # fmt: skip
    """Fit the rule where the protocol says, apply it to `test`; ValueError where there is nothing to test on.

    `unreadable` says which clips are missing from the tables, and why.
    """
    if not test:
        raise ValueError("no corpus has a test side: there is nothing to evaluate")
    test, left_out = trained_labels(test, validation)
    if not test:
        raise ValueError(f"no test corpus shares a label with a training corpus: {'; '.join(left_out)}")
    fitted_on = test if protocol == "published" else validation
    rule = fit(fitted_on, aus)
    evaluation = Evaluation(
        protocol=protocol,
        fitted_on="test labels" if protocol == "published" else f"validation ({', '.join(validation) or 'empty'})",
        au=tuple(_au_scores(name, table, rule) for name, table in test.items() if isinstance(table, AUTable)),
        fe=tuple(_fe_scores(name, table) for name, table in test.items() if isinstance(table, ExpressionTable)),
        noise=noise_floor(test),
        maps=maps,
        left_out=(*left_out, *unreadable),
        provenance=provenance,
    )
    return evaluation, rule


def trained_labels(test: Tables, trained: Tables) -> tuple[Tables, list[str]]:
    """`test` cut down to the AUs and classes that some table of `trained` has; what was cut, in words."""
    aus = {au for table in trained.values() if isinstance(table, AUTable) for au in table.aus}
    classes = {name for table in trained.values() if isinstance(table, ExpressionTable) for name in table.expressions}
    kept: dict[str, Table] = {}
    cut = []
    for corpus, table in test.items():
        found: Table | None
        if isinstance(table, AUTable):
            unknown = [f"AU{au}" for au in table.aus if au not in aus]
            found = _of_aus(table, [au for au in table.aus if au in aus])
        else:
            unknown = [name for name in table.expressions if name not in classes]
            found = _of_classes(table, [name for name in table.expressions if name in classes])
        if unknown:
            cut.append(f"{corpus}: {', '.join(unknown)}, which no training corpus labels")
        if found is not None:
            kept[corpus] = found
    return kept, cut


def _of_aus(table: AUTable, aus: Sequence[int]) -> AUTable | None:
    columns = [table.aus.index(au) for au in aus]
    if not columns or len(columns) == len(table.aus):
        return table if columns else None
    return replace(
        table, aus=tuple(aus), probabilities=table.probabilities[:, columns], labels=table.labels[:, columns]
    )


def _of_classes(table: ExpressionTable, classes: Sequence[str]) -> ExpressionTable | None:
    """The clips of these classes, with probabilities among them; None where there is no such clip."""
    if len(classes) == len(table.expressions):
        return table
    columns = [table.expressions.index(name) for name in classes]
    rows = np.flatnonzero(np.isin(table.labels, columns))
    gathered = ExpressionPredictions(classes)
    for row in rows:
        among = table.probabilities[row, columns].astype(np.float64)
        label = columns.index(int(table.labels[row]))
        gathered.update(table.clips[row], table.subjects[table.subject[row]], among / among.sum(), label)
    return gathered.table() if len(rows) else None


def fit(tables: Tables, aus: Sequence[int]) -> DecisionRule:
    """The best rule of each AU over all tables that label it; an AU that none labels keeps the plain threshold."""
    au_tables = [table for table in tables.values() if isinstance(table, AUTable)]
    rules: dict[int, AURule] = {}
    for au in aus:
        labelled = [(table, table.aus.index(au)) for table in au_tables if au in table.aus]
        if labelled:
            scores = np.concatenate([table.probabilities[:, [column]] for table, column in labelled])
            labels = np.concatenate([table.labels[:, [column]] for table, column in labelled])
            lengths = [length for table, _ in labelled for length in table.lengths]
            rules[au] = fit_rule([au], scores, labels, lengths).rules[au]
        else:
            rules[au] = AURule()
    return DecisionRule(rules=rules)


def noise_floor(tables: Tables, repeats: int = SPLITS, seed: int = 0) -> NoiseFloor:
    """How far macro F1, mean AUC and UAR move with the choice of held-out subjects: halves, drawn `repeats` times.

    In each repeat the subjects are halved; thresholds are fitted on one half and applied to the other, so the figure
    holds what repeated subject-exclusive splits show, without training again. Standard deviations, means over corpora.
    """
    spreads: dict[str, list[float]] = {"macro_f1": [], "auc": [], "uar": []}
    for table in tables.values():
        if len(table.subjects) < 4:
            continue
        halves = _halves(len(table.subjects), repeats, seed)
        if isinstance(table, AUTable):
            spreads["macro_f1"].append(_spread([_macro_f1_of_half(table, half) for half in halves]))
            ranked = scores_by_subject(table)
            spreads["auc"].append(_spread([float(macro(ranked_area(ranked[half].sum(0)))) for half in halves]))
        else:
            counts = confusion_by_subject(table)
            spreads["uar"].append(_spread([float(unweighted_recall(counts[half].sum(0))) for half in halves]))
    known = {name: [value for value in values if not np.isnan(value)] for name, values in spreads.items()}
    means = {name: float(np.mean(values)) if values else None for name, values in known.items()}
    return NoiseFloor(repeats=repeats, **means)


def map_report(model: SSM, true: Mapping[tuple[str, int], float] | None = None) -> MapReport | None:
    """The maps of a model beside its prior, and the `true` P(AU | expression) where somebody knows it.

    Correlations are of the AU->FE map.
    """
    maps = model.maps()
    if model.mapping is None or maps is None:
        return None
    labels = model.vocabulary
    learned, back = (np.asarray(each.detach().cpu()) for each in (maps.au_to_fe, maps.fe_to_au))
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


def describe(rule: DecisionRule) -> dict[int, str]:
    """Each AU's rule in words, for a report."""
    return {
        au: f"p ≥ {one.threshold:.2f}"
        + (f", {one.votes} of {2 * one.half_window + 1} frames" if one.half_window else "")
        for au, one in rule.rules.items()
    }


def _au_scores(name: str, table: AUTable, rule: DecisionRule) -> AUScores:
    figures = au_figures(table, rule)
    bins = figures.reliability
    return AUScores(
        corpus=name,
        aus=figures.aus,
        frames=figures.frames,
        subjects=figures.subjects,
        prevalence=tuple(figures.prevalence.tolist()),
        f1=_intervals(figures.f1),
        f1_half=_intervals(figures.f1_half),
        macro_f1=_interval(figures.macro_f1),
        macro_f1_half=_interval(figures.macro_f1_half),
        roc_auc=tuple(figures.roc_auc.tolist()),
        average_precision=tuple(figures.average_precision.tolist()),
        calibration_error=tuple(figures.calibration_error.tolist()),
        reliability=Reliability(
            confidence=tuple(bins.confidence.tolist()),
            observed=tuple(bins.observed.tolist()),
            counts=tuple(bins.counts.tolist()),
        ),
    )


def _fe_scores(name: str, table: ExpressionTable) -> FEScores:
    figures = expression_figures(table)
    return FEScores(
        corpus=name,
        expressions=figures.expressions,
        clips=figures.clips,
        uar=_interval(figures.uar),
        war=_interval(figures.war),
        recall=tuple(figures.recall.tolist()),
        confusion=tuple(tuple(row) for row in figures.confusion.tolist()),
    )


def _interval(estimate: Estimate) -> Interval:
    return Interval(value=float(estimate.value), low=float(estimate.low), high=float(estimate.high))


def _intervals(estimate: Estimate) -> tuple[Interval, ...]:
    triples = zip(estimate.value, estimate.low, estimate.high, strict=True)
    return tuple(Interval(value=float(value), low=float(low), high=float(high)) for value, low, high in triples)


def _spread(scores: Sequence[float]) -> float:
    """Standard deviation over the halves in which the score exists; nan where that is none."""
    found = [score for score in scores if not np.isnan(score)]
    return float(np.std(found)) if found else float("nan")


def _halves(subjects: int, repeats: int, seed: int) -> list[NDArray[np.bool_]]:
    generator = np.random.default_rng(seed)
    return [generator.permutation(subjects) < subjects // 2 for _ in range(repeats)]


def _macro_f1_of_half(table: AUTable, half: NDArray[np.bool_]) -> float:
    """Macro F1 on the subjects of `half`, each AU at the threshold (no vote) that is best on the other subjects."""
    inside = half[table.subject]
    hits = np.stack([_hits_at_best(table, column, inside) for column in range(len(table.aus))])
    return float(macro(f1_score(hits)))


def _hits_at_best(table: AUTable, column: int, inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    scores, labels = table.probabilities[:, column], table.labels[:, column]
    grid = THRESHOLDS
    reached = np.searchsorted(grid, scores.astype(np.float64), side="right")
    f1 = f1_score(_hits_at_every(reached[~inside], labels[~inside], len(grid)))
    best = len(grid) // 2 if np.isnan(f1).all() else int(np.nanargmax(f1))
    counts: NDArray[np.int64] = _hits_at_every(reached[inside], labels[inside], len(grid))[best]
    return counts


def _hits_at_every(reached: NDArray[np.intp], labels: NDArray[np.int8], thresholds: int) -> NDArray[np.int64]:
    """Hits (thresholds, 3) when a frame is positive that reaches more than as many thresholds."""
    above = [
        np.bincount(reached[labels == value], minlength=thresholds + 1)[::-1].cumsum()[::-1][1:] for value in (1, 0)
    ]
    return np.stack([above[0], above[1], (labels == 1).sum() - above[0]], axis=1).astype(np.int64)


def _correlation(one: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]]) -> float | None:
    known = ~np.isnan(other)
    if known.sum() < 3 or one[known].std() == 0 or other[known].std() == 0:
        return None
    return float(np.corrcoef(one[known], other[known])[0, 1])
