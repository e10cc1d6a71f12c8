"""From predictions to an honest `Evaluation`: rules fitted on validation, applied to test, with intervals and noise.

Protocols (method, section 9): under `clean` and `lodo` thresholds and vote rule are fitted on the validation sides,
under `published` on the test labels themselves. A rule is one per AU of the model, fitted over every corpus that labels
that AU. Labels that no training corpus has are not judged, whatever the test corpus says of them. Pure functions of
tables; `predictions` makes the tables, `assessment` writes what comes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from ssm.interface import DecisionRule
from ssm.metrics import AUTable, Estimate, ExpressionTable, au_figures, expression_figures, soft_figures
from ssm_platform.evaluate.judged import trained_labels
from ssm_platform.evaluate.noise import noise_floor
from ssm_platform.evaluate.predictions import Tables
from ssm_platform.evaluate.results import (
    AUScores,
    Evaluation,
    FEScores,
    Interval,
    MapReport,
    Provenance,
    Reliability,
    SoftScores,
)
from ssm_platform.evaluate.rules import fit
from ssm_platform.runs import Protocol


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
        soft=None if table.shares is None else SoftScores(**asdict(soft_figures(table))),
    )


def _interval(estimate: Estimate) -> Interval:
    return Interval(value=float(estimate.value), low=float(estimate.low), high=float(estimate.high))


def _intervals(estimate: Estimate) -> tuple[Interval, ...]:
    triples = zip(estimate.value, estimate.low, estimate.high, strict=True)
    return tuple(Interval(value=float(value), low=float(low), high=float(high)) for value, low, high in triples)
