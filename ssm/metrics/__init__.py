"""Metrics of both tasks: predictions gathered on any number of workers, then figures and their intervals.

`predictions` gathers and merges, `figures` computes from one merged table, `bootstrap` says how far a figure can be
trusted. Letters: N frames or clips, S subjects, A AUs, E expressions.
"""

from ssm.metrics.bootstrap import Estimate, bootstrap, bootstrap_difference
from ssm.metrics.figures import (
    AUFigures,
    ExpressionFigures,
    Reliability,
    au_figures,
    average_precision,
    calibration_error,
    confusion_by_subject,
    expression_figures,
    f1_score,
    hits_by_subject,
    macro,
    recall,
    reliability,
    roc_auc,
    unweighted_recall,
    weighted_recall,
)
from ssm.metrics.predictions import AUPredictions, AUTable, ExpressionPredictions, ExpressionTable
from ssm.metrics.ranking import ranked_area, scores_by_subject

__all__ = [
    "AUFigures",
    "AUPredictions",
    "AUTable",
    "Estimate",
    "ExpressionFigures",
    "ExpressionPredictions",
    "ExpressionTable",
    "Reliability",
    "au_figures",
    "average_precision",
    "bootstrap",
    "bootstrap_difference",
    "calibration_error",
    "confusion_by_subject",
    "expression_figures",
    "f1_score",
    "hits_by_subject",
    "macro",
    "ranked_area",
    "recall",
    "reliability",
    "roc_auc",
    "scores_by_subject",
    "unweighted_recall",
    "weighted_recall",
]
