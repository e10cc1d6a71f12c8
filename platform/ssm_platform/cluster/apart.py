"""Running a dataset in a process of the cluster instead of the driver's, whose screen is its user's.

The process that executes a dataset prints what Ray has to say of it (a plan, advice, a warning for each pool of
actors); there it goes to Ray's logs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeVar

import ray
from ray.data import Dataset

T = TypeVar("T")

rows_of = Dataset.iter_rows
blocks_of = partial(Dataset.iter_batches, batch_size=None, batch_format="numpy")


def executed(dataset: Dataset, taken: Callable[[Dataset], Iterable[T]]) -> Iterator[T]:
    """What is taken of a dataset (`rows_of`, `blocks_of`), as it comes. What its functions raise is raised here."""
    task: Any = ray.remote(num_cpus=0, max_retries=0)(_taken)
    stream = task.options(num_returns="streaming").remote(dataset, taken)
    try:
        for reference in stream:
            yield ray.get(reference)
    finally:
        ray.cancel(stream)


def _taken(dataset: Dataset, taken: Callable[[Dataset], Iterable[T]]) -> Iterator[T]:
    yield from taken(dataset)
