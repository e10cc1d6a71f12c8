"""How near the model runs to what the machine gives: a large product, and a plain timm backbone on the same frames.

    python bench/model.py [--threads N] [--rounds 5] [--clock wall|cpu] [--json FILE]
    python bench/model.py --device cuda --dtype bfloat16 --compile --fe 12 --au 8
    python bench/model.py --device cuda --dtype bfloat16 --compile --fe 12 --au 8 --only step --readers evidential hiva

Per backbone: a training step (both sides, losses, clipping, AdamW, averaging) and its plain peer (forward, backward,
AdamW), inference of both sides, folded, and its plain peer, and what a saved model's reader gives. Every subject is run
twice before anything is counted or timed, so first steps (which cost a forward pass more) and compilation are outside.
In a round each subject runs once beside a large product that is kept up for at least 0.1 s on a GPU and 1 s on a CPU;
on a GPU it is five runs in a row, since in training no step waits for the one before it. Seconds of one run are medians
of what the clock showed, shares and ratios medians over rounds. Operations (multiply and add: 2)
are those that routing needs: experts that a token does not visit count nothing, though a GPU computes them.
`--readers evidential hiva` adds a training step with each AU reader, beside that of the linear one, and on a GPU the
memory that a step takes besides weights and optimiser. `--clock cpu` takes the process's CPU time, for a machine shared
with others (with --threads 1 only).
Exit code 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from ssm import SSM
from ssm.inference import Predictor
from ssm.interface.preprocessing import Preprocessing
from ssm.labels.vocabulary import BASIC_EXPRESSIONS, BP4D_AUS, Vocabulary
from ssm.model.config import AUReaderConfig, BackboneConfig, ModelConfig, TextConfig
from ssm.model.precision import autocast
from ssm.model.readers.table import READERS
from ssm.training.batch import AUBatch, FEBatch
from ssm.training.step import TrainConfig, TrainStep

STEP, PLAIN_STEP = "training step", "plain training step"
READ, PLAIN_READ = "inference, both sides", "plain inference"
SERVED, SERVED_SHORT = "served, float32", "served, bfloat16"
BACKBONES = ("vit_base_patch16_clip_224.openai", "convnextv2_tiny")
LEAST_SHARE = {"cuda": {STEP: 0.45}, "cpu": {}}
MOST_TIMES_PLAIN = {"cuda": 1.15, "cpu": 1.12}
LEAST_SPEEDUP = 6.0
MOST_TIMES_LINEAR = {"evidential": 1.01, "hiva": 1.15}
"""How much dearer a training step with another AU reader may be."""
_IN_A_ROW = {"cuda": 5, "cpu": 1}  # runs between two drains of the device's queue
_SUSTAINED = {"cuda": 0.1, "cpu": 1.0}  # seconds of large products


@dataclass(frozen=True)
class Figure:
    """One subject: needed operations, median seconds, share of the large product's rate, and times its peer."""

    name: str
    teraflop: float
    seconds: float
    share: float
    peer: str = ""
    times_peer: float = float("nan")
    met: bool = True
    gib: float = float("nan")  # that one run takes besides what it keeps; of a GPU


class Stopwatch:
    """Seconds of calls in a row, on the wall or of the process's CPUs, the device's queue drained on both sides."""

    def __init__(self, device: torch.device, clock: str) -> None:
        self.device = device
        self.now = time.perf_counter if clock == "wall" else time.process_time

    def __call__(self, run: Callable[[], object], times: int = 1) -> float:
        self._drain()
        start = self.now()
        for _ in range(times):
            run()
        self._drain()
        return self.now() - start

    def _drain(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def product_rate(stopwatch: Stopwatch, dtype: torch.dtype) -> float:
    """Operations per second of large square matrix products, one after the other for long enough to be sustained."""
    kind = stopwatch.device.type
    size = 8192 if kind == "cuda" else 2048
    left, right = (torch.randn(size, size, device=stopwatch.device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    torch.mm(left, right, out=out)
    repeats = 2
    while True:
        seconds = stopwatch(partial(torch.mm, left, right, out=out), repeats)
        if seconds >= _SUSTAINED[kind]:
            return 2 * size**3 * repeats / seconds
        repeats = max(repeats + 1, int(repeats * 1.3 * _SUSTAINED[kind] / seconds))


def count_operations(run: Callable[[], object]) -> float:
    """Matrix-product operations of one run, the experts routed; torch's counter does not know a CPU's attention."""
    aten: Any = torch.ops.aten
    formulas: dict[Any, Any] = {
        aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda g, q, k, v, *_, **__: (
            sdpa_backward_flop_count(g, q, k, v)
        ),
    }
    routed = patch("ssm.model.experts._dense_pays", lambda _: False)
    with routed, FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        run()
    return float(counter.get_total_flops())


def make_model(options: argparse.Namespace, backbone: str, reader: str = "linear") -> SSM:
    """The configured model: BP4D's labels with DFEW's, from scratch."""
    torch.manual_seed(0)
    vocabulary = Vocabulary(aus=BP4D_AUS, expressions=BASIC_EXPRESSIONS)
    config = ModelConfig(
        vocabulary=vocabulary,
        backbone=BackboneConfig(name=backbone, image_size=options.size),
        text=TextConfig(tower=options.tower, style="llm" if READERS[reader].needs_texts else "facs"),
        frames=options.frames,
        au_reader=AUReaderConfig(kind=reader),
    )
    return SSM(config).to(options.device)


@dataclass(frozen=True)
class Subject:
    """What is timed, and the same uncompiled, whose operations can be counted."""

    run: Callable[[], object]
    plain: Callable[[], object]


def training_step(options: argparse.Namespace, backbone: str, reader: str = "linear") -> Subject:
    """A step on one batch of each side, as training takes it."""

    def make(compiled: bool) -> Callable[[], object]:
        config = TrainConfig(precision=options.dtype, compile=compiled, compile_mode=options.mode)
        step = TrainStep(
            make_model(options, backbone, reader), config, device=options.device,
            preprocessing=Preprocessing(image_size=options.size),
        )  # fmt: skip
        fe, au = batches(options)
        return lambda: step(fe, au, 1, 100)

    return Subject(make(options.compile), make(False))


def batches(options: argparse.Namespace) -> tuple[FEBatch, AUBatch]:
    """Random clips of both sides, on the device."""
    shape, generator = (options.frames, options.size, options.size, 3), torch.Generator().manual_seed(0)
    pixels = [torch.randint(0, 256, (n, *shape), generator=generator).byte() for n in (options.fe, options.au)]
    classes = torch.ones(options.fe, len(BASIC_EXPRESSIONS), dtype=torch.bool)
    fe = FEBatch(pixels[0], torch.zeros(options.fe, dtype=torch.long), classes, torch.arange(options.fe))
    targets = torch.zeros(options.au, options.frames, len(BP4D_AUS))
    au = AUBatch(pixels[1], targets, torch.ones_like(targets).bool(), torch.arange(options.au))
    return fe.to(torch.device(options.device)), au.to(torch.device(options.device))


def inference(options: argparse.Namespace, backbone: str) -> Subject:
    """A folded forward pass over both sides."""
    model, shape = make_model(options, backbone).fold(), (options.frames, 3, options.size, options.size)
    clips = [torch.randn(count, *shape, device=options.device) for count in (options.fe, options.au)]
    return _pass(model, clips, options)


def plain_inference(options: argparse.Namespace, backbone: str) -> Subject:
    """timm's own backbone over as many frames."""
    return _pass(plain_model(options, backbone).eval(), [plain_frames(options)], options)


def _pass(model: nn.Module, inputs: list[torch.Tensor], options: argparse.Namespace) -> Subject:
    def through(call: Callable[..., object]) -> Callable[[], object]:
        @torch.inference_mode()
        def run() -> None:
            with autocast(torch.device(options.device), options.dtype):
                call(*inputs)

        return run

    return Subject(through(_compiled(model, options)), through(model))


def plain_training(options: argparse.Namespace, backbone: str) -> Subject:
    """timm's own backbone: forward, backward, AdamW (fused), on as many frames."""
    frames = plain_frames(options)

    def make(compiled: bool) -> Callable[[], object]:
        model = plain_model(options, backbone).train()
        call = _compiled(model, options) if compiled else model
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

        def run() -> None:
            with autocast(torch.device(options.device), options.dtype):
                out = call(frames)
            out.float().square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

        return run

    return Subject(make(options.compile), make(False))


def plain_model(options: argparse.Namespace, backbone: str) -> nn.Module:
    """timm's own backbone with a head of the model's width."""
    return timm.create_model(backbone, pretrained=False, num_classes=512).to(options.device)


def plain_frames(options: argparse.Namespace) -> torch.Tensor:
    """As many frames as both sides have."""
    count = (options.fe + options.au) * options.frames
    return torch.randn(count, 3, options.size, options.size, device=options.device)


def served(options: argparse.Namespace, backbone: str, precision: Any) -> Subject:
    """What a saved model's reader gives for 8 windows of uint8 frames, answers on the host."""
    preprocessing = Preprocessing(image_size=options.size)
    windows = np.random.default_rng(0).integers(
        0, 256, (8, options.frames, options.size, options.size, 3), dtype=np.uint8
    )

    def make(compiled: bool) -> Callable[[], object]:
        reader = Predictor(
            make_model(options, backbone), preprocessing, device=options.device, precision=precision, compiled=compiled
        )
        return lambda: reader.read(windows)

    return Subject(make(options.compile and precision != "float32"), make(False))


def _compiled(model: nn.Module, options: argparse.Namespace) -> Callable[..., Any]:
    mode = None if options.mode == "default" else options.mode
    return torch.compile(model, dynamic=False, mode=mode) if options.compile else model


def subjects(options: argparse.Namespace, backbone: str) -> dict[str, Callable[[], Subject]]:
    """What is measured of one backbone, by name; made when needed, because each holds a model."""
    made = {
        STEP: lambda: training_step(options, backbone),
        PLAIN_STEP: lambda: plain_training(options, backbone),
        READ: lambda: inference(options, backbone),
        PLAIN_READ: lambda: plain_inference(options, backbone),
        SERVED: lambda: served(options, backbone, "float32"),
    }
    made |= {f"{STEP}, {reader}": partial(training_step, options, backbone, reader) for reader in options.readers}
    if options.device == "cuda":
        made[SERVED_SHORT] = lambda: served(options, backbone, "bfloat16")
    return {name: make for name, make in made.items() if options.only in name}


def measure(options: argparse.Namespace, backbone: str) -> tuple[list[Figure], list[float]]:
    """All figures of one backbone, and the rates of the rounds."""
    stopwatch, runs, operations, memory = Stopwatch(torch.device(options.device), options.clock), {}, {}, {}
    for name, make in subjects(options, backbone).items():
        subject = make()
        for run in (subject.plain, subject.run, subject.run):
            run()
        runs[name], operations[name] = subject.run, count_operations(subject.plain)
        memory[name] = taken(subject.run) if options.device == "cuda" else float("nan")
    rates: dict[str, list[float]] = {name: [] for name in runs}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    count = _IN_A_ROW[options.device]
    for _ in range(options.rounds):
        for name, run in runs.items():
            # The rate is taken beside every subject: a shared machine changes its speed within a round.
            rates[name].append(product_rate(stopwatch, getattr(torch, options.dtype)))
            seconds[name].append(stopwatch(run, count) / count)
    figures = [
        replace(_figure(name, operations[name], seconds, rates[name], options.device), gib=memory[name])
        for name in runs
    ]
    return figures, [rate for values in rates.values() for rate in values]


def taken(run: Callable[[], object]) -> float:
    """GiB that a run takes at most, besides what was there before it."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**30


def _figure(name: str, operations: float, seconds: dict[str, list[float]], rates: list[float], device: str) -> Figure:
    mine = seconds[name]
    share = statistics.median(operations / each / rate for each, rate in zip(mine, rates, strict=True))
    met = share >= LEAST_SHARE[device].get(name, 0.0)
    reader = name.removeprefix(f"{STEP}, ") if name != STEP else ""
    of_readers = dict.fromkeys((f"{STEP}, {one}" for one in READERS), STEP)
    peer = ({STEP: PLAIN_STEP, READ: PLAIN_READ, SERVED_SHORT: SERVED} | of_readers).get(name, "")
    times = float("nan")
    if peer in seconds:
        times = statistics.median(each / other for each, other in zip(mine, seconds[peer], strict=True))
        most = 1 / LEAST_SPEEDUP if peer == SERVED else MOST_TIMES_PLAIN[device]
        met &= times <= (MOST_TIMES_LINEAR.get(reader, float("inf")) if peer == STEP else most)
    return Figure(name, operations / 1e12, statistics.median(mine), share, peer, times, met)


def machine(options: argparse.Namespace) -> str:
    """What was measured on."""
    if options.device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def main() -> int:
    """Measures and prints; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", nargs="+", default=list(BACKBONES), help="timm names; targets are for the first")
    parser.add_argument("--tower", default="minilm", help="text tower, as in the model's configuration")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--fe", type=int, default=1, help="FE clips")
    parser.add_argument("--au", type=int, default=1, help="AU clips")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--mode", default="default", help="torch.compile's")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--only", default="", help="subjects whose name holds this")
    parser.add_argument("--readers", nargs="*", default=[], choices=[one for one in READERS if one != "linear"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.clock == "cpu" and (options.device != "cpu" or torch.get_num_threads() != 1):
        parser.error("--clock cpu is for --device cpu --threads 1: idle threads would count as work")
    print(f"{machine(options)}; {options.dtype}, {options.fe} FE + {options.au} AU clips of {options.frames} frames")
    content, met = {}, True
    for backbone in options.backbone:
        figures, rates = measure(options, backbone)
        report(backbone, figures, rates)
        content[backbone] = [asdict(figure) for figure in figures]
        met &= backbone != options.backbone[0] or all(figure.met for figure in figures)
    if options.json:
        told = {"machine": machine(options), "options": {name: str(value) for name, value in vars(options).items()}}
        options.json.write_text(json.dumps({**told, "figures": content}, indent=2))
    return 0 if met else 1


def report(backbone: str, figures: list[Figure], rates: list[float]) -> None:
    """Prints one backbone's figures."""
    low, middle, high = (value / 1e9 for value in (min(rates), statistics.median(rates), max(rates)))
    print(f"{backbone}: large product {low:.0f} to {high:.0f} GFLOP/s, median {middle:.0f}")
    for each in figures:
        peer = f"  {each.times_peer:.3f} x {each.peer}" if each.peer and each.times_peer == each.times_peer else ""
        verdict = "" if each.met else "  MISSED"
        memory = f"  {each.gib:.2f} GiB" if each.gib == each.gib else ""
        cost = f"{each.teraflop:7.3f} TFLOP {each.seconds:8.4f} s  {each.share:.3f}"
        print(f"  {each.name:28} {cost}{peer}{memory}{verdict}")


if __name__ == "__main__":
    sys.exit(main())
