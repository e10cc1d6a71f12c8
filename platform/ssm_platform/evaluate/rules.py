"""The decision rule of a whole model, fitted over every corpus that labels an AU, and the rule in words.

`ssm.interface.fit_rule` fits one table; this decides which frames of which corpora each AU is fitted on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssm.interface import AURule, DecisionRule, fit_rule
from ssm.metrics import AUTable
from ssm_platform.evaluate.predictions import Tables


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


def describe(rule: DecisionRule) -> dict[int, str]:
    """Each AU's rule in words, for a report."""
    return {
        au: f"p ≥ {one.threshold:.2f}"
        + (f", {one.votes} of {2 * one.half_window + 1} frames" if one.half_window else "")
        for au, one in rule.rules.items()
    }
