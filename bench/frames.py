"""The frame baseline's two promises: encoding on Ray at 0.9 of the bare loop, and heads of three tasks in 3 minutes.

    python bench/frames.py encoding [--frames 4000]      # ratio of rates, decode + encode; drawn faces, EfficientNet-B0
    python bench/frames.py heads [--frames 100000]       # seconds of training on cached features of width 1280

Encoding takes one worker and one thread on both sides, start-up of Ray left out; the corpus is written first.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from ssm.labels import AFFECT, BP4D_AUS, OTHER, Vocabulary
from ssm.labels.vocabulary import BASIC_EXPRESSIONS
from ssm_platform.base.machine import describe_machine
from ssm_platform.cluster import joined
from ssm_platform.corpora import read_corpus
from ssm_platform.frames import cache
from ssm_platform.frames.config import EncoderConfig, FrameRun, HeadsConfig
from ssm_platform.frames.encoders import make_encoder
from ssm_platform.frames.encoding import encode
from ssm_platform.frames.heads import Frames, train_heads
from ssm_platform.runs import CorpusConfig
from ssm_platform.synthetic import LabSpec, SyntheticSpec, write_corpus

WIDTH = 1280


def main() -> None:
    """Prints one measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("encoding", "heads"))
    parser.add_argument("--frames", type=int)
    options = parser.parse_args()
    print(f"machine: {describe_machine()}")
    print(encoding(options.frames or 4000) if options.what == "encoding" else heads(options.frames or 100_000))


def encoding(frames: int) -> str:
    """Frames a second, bare and on Ray."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        spec = SyntheticSpec(size=224, lab=LabSpec(subjects=4, sequences=1, frames=max(frames // 4, 1)))
        root = write_corpus("affwild2_va", Path(scratch) / "corpus", spec, 1, processes=2)
        manifest = read_corpus("affwild2_va", root).manifest
        run = FrameRun(
            storage=scratch,
            corpora=(CorpusConfig(name="affwild2_va", root=str(root)),),
            encoder=EncoderConfig(timm="tf_efficientnet_b0", pretrained=False),
        )
        encoder = make_encoder(run.encoder, run.seed)
        started = time.perf_counter()
        for part in cache.parts_of(manifest):
            cache.encode_part(manifest, f"{scratch}/bare", part, encoder, run.batch)
        bare = time.perf_counter() - started
        with joined(cpus=2):
            encode(run, manifest.take([0]), f"{scratch}/warm")  # start-up of Ray Data
            started = time.perf_counter()
            encode(run, manifest, f"{scratch}/ray")
            on_ray = time.perf_counter() - started
        total = int(manifest.lengths.sum())
    return (
        f"bare {total / bare:.1f} frames/s, on Ray {total / on_ray:.1f} frames/s "
        f"(start of the encoder in it): ratio {bare / on_ray:.3f} (asked: 0.9)"
    )


def heads(frames: int) -> str:
    """Seconds of the three heads, with the published constants."""
    vocabulary = Vocabulary(aus=BP4D_AUS, expressions=(*BASIC_EXPRESSIONS, OTHER), affect=AFFECT)
    sides = [_drawn(count, vocabulary) for count in (frames, frames // 5)]
    started = time.perf_counter()
    train_heads(sides[0], sides[1], vocabulary, WIDTH, HeadsConfig(), seed=1)
    return f"three heads on {frames} frames: {time.perf_counter() - started:.1f} s (asked: 180 on 2 cores)"


def _drawn(frames: int, vocabulary: Vocabulary) -> dict:  # type: ignore[type-arg]
    generator = np.random.default_rng(frames)
    features = torch.from_numpy(generator.standard_normal((frames, WIDTH), np.float32).astype(np.float16))
    classes = torch.from_numpy(generator.integers(0, len(vocabulary.expressions), frames))
    aus = torch.from_numpy((generator.random((frames, len(vocabulary.aus))) < 0.3).astype(np.float32))
    affect = torch.from_numpy(generator.uniform(-1, 1, (frames, 2)).astype(np.float32))
    return {
        "fe": Frames(features, classes, torch.ones(frames, dtype=torch.bool)),
        "au": Frames(features, aus, torch.ones(aus.shape, dtype=torch.bool)),
        "va": Frames(features, affect, torch.ones(affect.shape, dtype=torch.bool)),
    }


if __name__ == "__main__":
    main()
