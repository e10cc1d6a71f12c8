"""Tables of predictions drawn at random, for tests of what is counted from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ssm.metrics import AUPredictions, AUTable, ExpressionPredictions, ExpressionTable

AUS, EXPRESSIONS = (1, 4, 12), ("happiness", "sadness", "neutral", "fear")


def stretches(seed: int, sequences: int = 5) -> list[tuple[str, str, NDArray[np.int64], NDArray, NDArray]]:
    generator = np.random.default_rng(seed)
    found = []
    for number in range(sequences):
        length = int(generator.integers(3, 20))
        labels = generator.integers(-1, 2, (length, len(AUS)))
        probabilities = np.clip(0.3 + 0.3 * labels + 0.3 * generator.random(labels.shape), 0, 1).astype(np.float32)
        found.append((f"q{number}", f"s{number % 3}", np.arange(length) + 10, probabilities, labels))
    return found


def au_table(seed: int, sequences: int = 5) -> AUTable:
    gathered = AUPredictions(AUS)
    for stretch in stretches(seed, sequences):
        gathered.update(*stretch)
    return gathered.table()


def expression_table(seed: int, clips: int = 60) -> ExpressionTable:
    generator = np.random.default_rng(seed)
    gathered = ExpressionPredictions(EXPRESSIONS)
    for number in range(clips):
        label = int(generator.integers(len(EXPRESSIONS)))
        scores = generator.random(len(EXPRESSIONS)) + 0.6 * (np.arange(len(EXPRESSIONS)) == label)
        gathered.update(f"c{number:03}", f"s{number % 7}", scores / scores.sum(), label)
    return gathered.table()
