"""`python -m ssm_platform.train.weighing`: a run's config on standard input; on standard output the trained weights of
its model, or why it cannot be built.

A process of its own: a text tower's libraries take a quarter of a gigabyte, which a driver that had imported them would
hold to the end of the run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from ssm_platform.runs import RunConfig, preflight
from ssm_platform.train.building import initial_model

_PATIENCE = 3600.0  # seconds; a hub's weights may have to be fetched


def trained_weights(config: RunConfig) -> int:
    """How many weights of the model are trained. Building it shows missing weights and impossible settings before Ray
    starts: `PreflightError`.
    """
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=config.model_dump_json(),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
        timeout=_PATIENCE,
        check=True,
    )
    answer = json.loads(done.stdout)
    if isinstance(answer, str):
        raise preflight.PreflightError([preflight.Refusal("model or init_from", f"cannot be built: {answer}")])
    return int(answer)


def _weigh(config: RunConfig) -> int | str:
    try:
        model = initial_model(config)
    except (ValueError, OSError) as error:
        return str(error)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


if __name__ == "__main__":
    print(json.dumps(_weigh(RunConfig.model_validate_json(sys.stdin.read()))))
