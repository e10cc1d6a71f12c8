"""Whether answers move where a model is served in bfloat16: every decision on a run's test clips beside float32's.

    python bench/decisions.py runs/quickstart [--clips 1000] [--device cuda] [--json FILE]

The run's best model reads the same test clips twice, in float32 and in bfloat16 (autocast, as serving does), in one
process without Ray. An AU decision is a frame's vote at the threshold of the model's rule (one half where it has none),
an expression decision the likeliest class of its corpus. Exit code 1, and a line for each reason, where an AU
probability moves by more than 5e-3, or a decision changes that lies further than that from its threshold (an
expression: whose two likeliest classes lie further apart than twice that). Counts beside them are of all decisions.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssm import SSM
from ssm.interface.preprocessing import normalise
from ssm.interface.rules import DecisionRule
from ssm.model.precision import autocast, resolve
from ssm_platform.base.machine import describe_machine
from ssm_platform.data.clips import to_batches
from ssm_platform.data.plan import evaluation_rows
from ssm_platform.runs.config import RunConfig
from ssm_platform.runs.preparation import prepare
from ssm_platform.train.building import run_reader
from ssm_platform.train.validation import spread

NEAR = 5e-3  # of a probability
BATCH = 16


@dataclass
class Moved:
    """What changed between the two, summed over batches."""

    clips: int = 0
    au_decisions: int = 0
    au_changed: int = 0
    au_changed_far: int = 0  # from the threshold
    fe_decisions: int = 0
    fe_changed: int = 0
    fe_changed_far: int = 0
    au_most: float = 0.0  # that a probability moved
    fe_most: float = 0.0

    def add_aus(self, one: Tensor, other: Tensor, thresholds: Tensor) -> None:
        """Probabilities of frames (N A) in float32 and in bfloat16."""
        changed = (one >= thresholds) != (other >= thresholds)
        self.au_decisions += one.numel()
        self.au_changed += int(changed.sum())
        self.au_changed_far += int((changed & ((one - thresholds).abs() > NEAR)).sum())
        self.au_most = max(self.au_most, float((one - other).abs().max()))

    def add_expressions(self, one: Tensor, other: Tensor) -> None:
        """Probabilities of clips (B E)."""
        changed, (first, second) = one.argmax(1) != other.argmax(1), one.topk(2, 1).values.T
        self.fe_decisions += len(one)
        self.fe_changed += int(changed.sum())
        self.fe_changed_far += int((changed & (first - second > 2 * NEAR)).sum())
        self.fe_most = max(self.fe_most, float((one - other).abs().max()))

    @property
    def failures(self) -> list[str]:
        """What is missed, one line each."""
        figures = {
            "greatest change of an AU probability": (self.au_most, NEAR),
            "AU decisions changed away from the threshold": (self.au_changed_far, 0),
            "expressions changed away from a tie": (self.fe_changed_far, 0),
        }
        return [
            f"FAILED: {name}: {value:g}, at most {most:g}" for name, (value, most) in figures.items() if value > most
        ]


@torch.inference_mode()
def compare(run: Path, clips: int, device: torch.device) -> Moved:
    """Both readings of at most `clips` test clips, spread evenly over the corpora."""
    config = RunConfig.model_validate(json.loads((run / "run.json").read_text())["config"])
    manifests = [split.test for split in prepare(config).splits.values()]
    model = SSM.from_pretrained(run / "model").to(device).eval()
    rule = model.facts.rule or DecisionRule.default(model.vocabulary.aus)
    thresholds = torch.tensor([one.threshold for one in rule.select(model.vocabulary.aus).rules.values()])
    rows = spread(evaluation_rows(manifests, config.model.frames), clips // len(manifests))
    reader, moved = run_reader(config, [], manifests), Moved(clips=len(rows))
    resolve("bfloat16", device)
    for first in range(0, len(rows), BATCH):
        fe, au, _ = to_batches(reader.read(rows[first : first + BATCH].columns()))
        found: dict[str, list[Tensor]] = {"float32": [], "bfloat16": []}
        for precision, said in found.items():
            with autocast(device, precision):  # type: ignore[arg-type]
                if au is not None:
                    seen = normalise(au.clips.to(device), config.preprocessing)
                    said.append(model(au_clips=seen).au_logits.float().sigmoid().cpu()[au.mask.any(2)])
                if fe is not None:
                    there = fe.to(device)
                    seen = normalise(there.clips, config.preprocessing)
                    logits = model(fe_clips=seen, fe_distinct=there.distinct).fe_logits.float().cpu()
                    said.append(logits.masked_fill(~fe.class_mask, -np.inf).softmax(1)[fe.class_mask.any(1)])
        one, other = found.values()
        if au is not None:
            moved.add_aus(one[0], other[0], thresholds)
        if fe is not None:
            moved.add_expressions(one[-1], other[-1])
    return moved


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    moved = compare(arguments.run, arguments.clips, torch.device(arguments.device))
    found = {"machine": describe_machine(), "device": arguments.device, **asdict(moved)}
    print(json.dumps(found, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    print("\n".join(moved.failures), file=sys.stderr)
    sys.exit(bool(moved.failures))


if __name__ == "__main__":
    main()
