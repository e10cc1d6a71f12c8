"""From predictions to an honest `Evaluation`: rules fitted on validation, applied to test, with intervals and noise.

Protocols (method, section 9): under `clean` and `lodo` thresholds and vote rule are fitted on the validation sides,
under `published` on the test labels themselves. A rule is one per AU of the model, fitted over every corpus that labels
that AU. Labels that no training corpus has are not judged, whatever the test corpus says of them. What the labels or
the people do not allow is nan and said, never an error. Pure functions of tables; `predictions` makes the tables,
`assessment` writes what comes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from ssm.interface import Abstention, DecisionRule, Smoothing
from ssm.metrics import (
    AUTable,
    ExpressionTable,
    RiskCoverage,
    abstained,
    au_figures,
    au_risk,
    au_risk_by_doubt,
    au_temperature,
    calibration_error,
    cooled_aus,
    cooled_expressions,
    expression_figures,
    expression_risk,
    expression_temperature,
    fit_abstention,
    macro,
    soft_figures,
    winner_error,
)
from ssm_platform.evaluate import scores
from ssm_platform.evaluate.affect import affect_scores, fit_half_window
from ssm_platform.evaluate.gaps import undefined
from ssm_platform.evaluate.groups import People, group_scores
from ssm_platform.evaluate.judged import trained_labels
from ssm_platform.evaluate.noise import noise_floor
from ssm_platform.evaluate.pooling import (
    POOLED,
    affect_tables,
    au_tables,
    expression_tables,
    pooled_affect,
    pooled_aus,
    pooled_expressions,
)
from ssm_platform.evaluate.predictions import Tables
from ssm_platform.evaluate.rules import ON_TEST, protocol_rule
from ssm_platform.evaluate.scores import (
    AUScores,
    Calibration,
    Evaluation,
    EvaluationProtocol,
    EvidenceScores,
    FEScores,
    Interval,
    MapReport,
    Provenance,
    Reliability,
    SoftScores,
)


@dataclass(frozen=True)
class About:
    """What stands beside the figures."""

    provenance: Provenance
    maps: MapReport | None = None
    unreadable: Sequence[str] = ()  # which clips are missing from the tables, and why
    people: People | None = None  # groups to judge apart
    risk: float | None = None  # wanted of the answers given; an abstention is fitted for it


def evaluate(
    test: Tables, validation: Tables, protocol: EvaluationProtocol, aus: Sequence[int], about: About
) -> tuple[Evaluation, DecisionRule]:
    """Fit the rule where the protocol says, apply it to `test`; ValueError where there is nothing to test on."""
    if not test:
        raise ValueError("no corpus has a test side: there is nothing to evaluate")
    test, left_out = trained_labels(test, validation)
    if not test:
        raise ValueError(f"no test corpus shares a label with a training corpus: {'; '.join(left_out)}")
    rule = protocol_rule(test, validation, protocol, aus)
    au, fe, va = au_tables(test), expression_tables(test), affect_tables(test)
    half_window = fit_half_window(affect_tables(test if protocol in ON_TEST else validation).values())
    on = au_tables(test if protocol in ON_TEST else validation)
    abstention = None if about.risk is None else fit_abstention(list(on.values()), rule, about.risk)
    judge = _Judge(
        rule,
        au_temperature(list(au_tables(validation).values())),
        expression_temperature(list(expression_tables(validation).values())),
        abstention,
    )
    evaluation = Evaluation(
        protocol=protocol,
        fitted_on="test labels" if protocol in ON_TEST else f"validation ({', '.join(validation) or 'empty'})",
        au=tuple(judge.aus(name, table) for name, table in au.items()),
        fe=tuple(judge.expressions(name, table) for name, table in fe.items()),
        au_pooled=judge.aus(POOLED, pooled_aus(au)) if len(au) > 1 else None,
        fe_pooled=judge.expressions(POOLED, pooled_expressions(fe)) if len(fe) > 1 else None,
        va=tuple(affect_scores(name, table, half_window) for name, table in va.items()),
        va_pooled=affect_scores(POOLED, pooled_affect(va), half_window) if len(va) > 1 else None,
        smoothing=Smoothing(affect=half_window) if va else None,
        groups=tuple(group_scores(test, rule, about.people)) if about.people else (),
        noise=noise_floor(test),
        maps=about.maps,
        abstention=abstention,
        left_out=(*left_out, *about.unreadable),
        undefined=tuple(undefined(test)),
        provenance=about.provenance,
    )
    return evaluation, rule


@dataclass(frozen=True)
class _Judge:
    """Scores of a test table, by what was fitted elsewhere."""

    rule: DecisionRule
    au_temperature: float | None
    fe_temperature: float | None
    abstention: Abstention | None = None

    def aus(self, name: str, table: AUTable) -> AUScores:
        figures = au_figures(table, self.rule)
        bins = figures.reliability
        return AUScores(
            corpus=name,
            aus=figures.aus,
            frames=figures.frames,
            subjects=figures.subjects,
            prevalence=tuple(figures.prevalence.tolist()),
            f1=Interval.each(figures.f1),
            f1_half=Interval.each(figures.f1_half),
            macro_f1=Interval.of(figures.macro_f1),
            macro_f1_half=Interval.of(figures.macro_f1_half),
            roc_auc=Interval.each(figures.roc_auc),
            mean_auc=Interval.of(figures.mean_auc),
            average_precision=tuple(figures.average_precision.tolist()),
            calibration_error=tuple(figures.calibration_error.tolist()),
            calibration=self._au_calibration(table),
            risk=_risk(au_risk(table)),
            evidence=self._evidence(table),
            reliability=Reliability(
                confidence=tuple(bins.confidence.tolist()),
                observed=tuple(bins.observed.tolist()),
                counts=tuple(bins.counts.tolist()),
            ),
        )

    def expressions(self, name: str, table: ExpressionTable) -> FEScores:
        figures = expression_figures(table)
        return FEScores(
            corpus=name,
            expressions=figures.expressions,
            clips=figures.clips,
            subjects=figures.subjects,
            uar=Interval.of(figures.uar),
            war=Interval.of(figures.war),
            recall=Interval.each(figures.recall),
            confusion=tuple(tuple(row) for row in figures.confusion.tolist()),
            calibration=self._fe_calibration(table),
            risk=_risk(expression_risk(table)),
            soft=None if table.shares is None else SoftScores(**asdict(soft_figures(table))),
        )

    def _evidence(self, table: AUTable) -> EvidenceScores | None:
        by_doubt = au_risk_by_doubt(table)
        if by_doubt is None or table.tilted is None:
            return None
        error = float(macro(calibration_error(replace(table, probabilities=table.tilted))))
        given, wrong = (None, None) if self.abstention is None else abstained(table, self.rule, self.abstention)
        return EvidenceScores(tilted_error=error, risk=_risk(by_doubt), given=given, wrong=wrong)

    def _au_calibration(self, table: AUTable) -> Calibration:
        found = [table] if self.au_temperature is None else [table, cooled_aus(table, self.au_temperature)]
        before, *after = [float(macro(calibration_error(one))) for one in found]
        return Calibration(before=before, temperature=self.au_temperature, after=after[0] if after else None)

    def _fe_calibration(self, table: ExpressionTable) -> Calibration:
        found = [table] if self.fe_temperature is None else [table, cooled_expressions(table, self.fe_temperature)]
        before, *after = map(winner_error, found)
        return Calibration(before=before, temperature=self.fe_temperature, after=after[0] if after else None)


def _risk(found: RiskCoverage) -> scores.RiskCoverage:
    return scores.RiskCoverage(
        coverage=tuple(found.coverage.tolist()), risk=tuple(found.risk.tolist()), area=found.area
    )
