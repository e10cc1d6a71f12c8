"""What is asked when a run is opened, in the order in which it can be known: of the config, then of data and model.

Of the cluster, once one is joined, `budget.check_cluster` asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ssm_platform.runs.config import RunConfig
from ssm_platform.runs.preflight.budget import check_batches, check_store
from ssm_platform.runs.preflight.crops import check_crops
from ssm_platform.runs.preflight.data import check_data, check_protocol, check_sources
from ssm_platform.runs.preflight.places import check_shadowing, check_storage, check_tracking
from ssm_platform.runs.preflight.refusals import Refusal
from ssm_platform.runs.splits import Split

OF_CONFIG: tuple[Callable[[RunConfig], list[Refusal]], ...] = (check_batches, check_protocol)
OF_PLACES: tuple[Callable[[RunConfig], list[Refusal]], ...] = (check_sources, check_tracking, check_store)


def check_config(config: RunConfig) -> list[Refusal]:
    """What the config alone shows."""
    return [refusal for check in OF_CONFIG for refusal in check(config)]


def check_unopened(config: RunConfig) -> list[Refusal]:
    """What can be refused before a corpus is read."""
    return [
        *check_shadowing(),
        *check_config(config),
        *(refusal for check in OF_PLACES for refusal in check(config)),
    ]


def check_opened(config: RunConfig, splits: Mapping[str, Split], parameters: int) -> list[Refusal]:
    """What the split corpora and the size of the model show."""
    return [*check_data(config, splits), *check_crops(config, splits), *check_storage(config, parameters)]
