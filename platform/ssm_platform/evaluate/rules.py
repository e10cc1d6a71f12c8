"""The decision rule of a whole model, fitted as its protocol says, and the rule in words.

`ssm.interface` fits one table; this decides which frames of which corpora each AU is fitted on, and whether AUs share
one rule: the published protocol searches one threshold and vote for all of them on the test labels.
"""

from __future__ import annotations

from collections.abc import Sequence

from ssm.interface import AURule, DecisionRule, fit_common_rule, fit_rule
from ssm_platform.evaluate.pooling import au_tables, pooled_aus
from ssm_platform.evaluate.predictions import Tables
from ssm_platform.evaluate.scores import EvaluationProtocol

ON_TEST = ("published", "published_per_au")
"""The protocols that fit on the test labels."""


def protocol_rule(test: Tables, validation: Tables, protocol: EvaluationProtocol, aus: Sequence[int]) -> DecisionRule:
    """The rule of each of `aus` that the protocol fits; the plain threshold for an AU that nothing labels."""
    if protocol == "published":
        return fit_common(test, aus)
    return fit(test if protocol in ON_TEST else validation, aus)


def fit(tables: Tables, aus: Sequence[int]) -> DecisionRule:
    """The best rule of each AU over all tables that label it; an AU that none labels keeps the plain threshold."""
    rules: dict[int, AURule] = {}
    for au in aus:
        labelled = {name: table for name, table in au_tables(tables).items() if au in table.aus}
        if labelled:
            table = pooled_aus(labelled)
            column = [table.aus.index(au)]
            rules[au] = fit_rule([au], table.probabilities[:, column], table.labels[:, column], table.lengths).rules[au]
        else:
            rules[au] = AURule()
    return DecisionRule(rules=rules)


def fit_common(tables: Tables, aus: Sequence[int]) -> DecisionRule:
    """One rule for all `aus`: the best by mean F1 over the AUs that the tables label."""
    found = au_tables(tables)
    if not found:
        return DecisionRule.default(aus)
    table = pooled_aus(found)
    common = fit_common_rule(table.aus, table.probabilities, table.labels, table.lengths).rules[table.aus[0]]
    return DecisionRule(rules=dict.fromkeys(aus, common))


def describe(rule: DecisionRule) -> dict[int, str]:
    """Each AU's rule in words, for a report."""
    return {
        au: f"p ≥ {one.threshold:.2f}"
        + (f", {one.votes} of {2 * one.half_window + 1} frames" if one.half_window else "")
        for au, one in rule.rules.items()
    }
