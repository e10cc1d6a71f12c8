"""What a still image costs as a clip of T frames: the model's pass over one-frame clips against one frame each.

    python bench/stills.py [--frames 4 16] [--clips 32] [--rounds 7] [--json FILE]

For recipe `real_faces`'s model with clips of T frames, in turns in one process on one thread: the backbone over B
images; the whole expression side (backbone, temporal part, prototypes, head) over B clips of one frame; the same over
B clips whose T frames are all encoded, as every clip was before. Processor time, medians over the rounds; also the
largest difference between the two ways. Exit code 1 where a still costs more than 1.2 of a frame's pass.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ssm.model.config import TextConfig
from ssm.model.network import SSMNetwork
from ssm_platform.runs.open_recipes import real_faces

TARGET = 1.2


def seconds(work: Callable[[], object]) -> float:
    """Processor time of this thread."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


def measure(frames: int, clips: int, rounds: int) -> dict[str, float]:
    """The three costs and the greatest difference of the two ways' logits, for clips of `frames` frames."""
    config = real_faces().model
    text = TextConfig(tower=None)
    mapping = config.mapping.model_copy(update={"enabled": False})
    model = SSMNetwork(config.model_copy(update={"frames": frames, "text": text, "mapping": mapping})).eval()
    size = config.backbone.image_size
    images = torch.randn(clips, 1, 3, size, size)
    repeated, counts = images.expand(-1, frames, -1, -1, -1).contiguous(), torch.ones(clips, dtype=torch.int64)
    ways: dict[str, Callable[[], object]] = {
        "frame": lambda: model.encode_frames(images[:, 0]),
        "still": lambda: model(fe_clips=repeated, fe_distinct=counts),
        "repeated": lambda: model(fe_clips=repeated),
    }
    with torch.inference_mode():
        difference = (model(fe_clips=repeated, fe_distinct=counts).fe_logits - model(fe_clips=repeated).fe_logits).abs()
        times = [{name: seconds(work) for name, work in ways.items()} for _ in range(rounds + 1)][1:]
    costs = {name: statistics.median(one[name] for one in times) for name in ways}
    ratio = statistics.median(one["still"] / one["frame"] for one in times)
    return {"frames": frames, **{f"{name}_ms": 1e3 * cost / clips for name, cost in costs.items()}, "ratio": ratio,
            "difference": float(difference.max())}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, default=None)
    known = parser.parse_args()
    torch.set_num_threads(1)
    found = [measure(frames, known.clips, known.rounds) for frames in known.frames]
    for one in found:
        print(
            f"T {one['frames']:2.0f}: a frame {one['frame_ms']:.2f} ms, a still {one['still_ms']:.2f} ms "
            f"({one['ratio']:.2f} of it; target <= {TARGET}), T frames encoded {one['repeated_ms']:.2f} ms; "
            f"greatest difference {one['difference']:.1e}"
        )
    if known.json:
        known.json.write_text(json.dumps(found, indent=1))
    sys.exit(any(one["ratio"] > TARGET for one in found))


if __name__ == "__main__":
    main()
