"""A driver to be killed: `train_driver.py OVERRIDES_AS_JSON` trains `tiny` on the cluster of `RAY_ADDRESS`."""

from __future__ import annotations

import json
import sys

from ssm_platform.base.overrides import override
from ssm_platform.runs.recipes import tiny
from ssm_platform.train.running import train

if __name__ == "__main__":
    print(train(override(tiny(), json.loads(sys.argv[1]))))
