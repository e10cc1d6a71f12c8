"""How near the model runs to the floor: the time its matrix products alone would take at the machine's best rate.

    python bench/model.py [--threads N] [--rounds 5] [--clock wall|cpu] [--json FILE]
    python bench/model.py --device cuda --dtype bfloat16 --compile --fe 12 --au 8

In every round a large matrix product gives the rate, then each subject runs once; a ratio is floor over time, a figure
the median over rounds. Operations are counted by torch (multiply and add: 2). Subjects: a whole training step (both
sides, losses, clipping, AdamW, averaging), inference of both sides and of one, and the experts of one block alone.
`--clock cpu` takes the process's CPU time, for a machine shared with others (with --threads 1 only).
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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from ssm import SSM
from ssm.interface.preprocessing import Preprocessing
from ssm.labels.vocabulary import BASIC_EXPRESSIONS, BP4D_AUS, Vocabulary
from ssm.model.config import BackboneConfig, ModelConfig
from ssm.model.experts import ExpertMlp
from ssm.training.batch import AUBatch, FEBatch
from ssm.training.step import TrainConfig, TrainStep

CPU_TARGETS = {"training step": 0.75, "inference, both sides": 0.9}
GPU_TARGETS = {"training step": 0.45}
EXPERTS_LIMIT = 1.3


@dataclass(frozen=True)
class Figure:
    """One subject: operations per run, median seconds, median ratio to the floor, and its target."""

    name: str
    teraflop: float
    seconds: float
    ratio: float
    target: str
    met: bool


class Stopwatch:
    """Seconds of a call, on the wall or of the process's CPUs, with the device's queue drained on both sides."""

    def __init__(self, device: torch.device, clock: str) -> None:
        self.device = device
        self.now = time.perf_counter if clock == "wall" else time.process_time

    def __call__(self, run: Callable[[], object]) -> float:
        self._drain()
        start = self.now()
        run()
        self._drain()
        return self.now() - start

    def _drain(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def product_rate(stopwatch: Stopwatch, dtype: torch.dtype) -> float:
    """Operations per second of one large square matrix product."""
    size = 8192 if stopwatch.device.type == "cuda" else 4096
    left, right = (torch.randn(size, size, device=stopwatch.device).to(dtype) for _ in range(2))
    stopwatch(lambda: left @ right)
    return 2 * size**3 / stopwatch(lambda: left @ right)


def count_operations(run: Callable[[], object]) -> float:
    """Matrix-product operations of one run; torch's counter does not know two of the kernels in use."""
    aten: Any = torch.ops.aten
    formulas: dict[Any, Any] = {
        aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda g, q, k, v, *_, **__: (
            sdpa_backward_flop_count(g, q, k, v)
        ),
        aten._grouped_mm: _grouped_operations,
    }
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        run()
    return float(counter.get_total_flops())


def _grouped_operations(left: tuple[int, ...], right: tuple[int, ...], *_: object, **__: object) -> int:
    """Rows are shared out among the groups: (M, K) with (G, K, N), or for weights' gradients (M, K) with (K, N)."""
    return 2 * left[0] * left[1] * right[-1]


def make_model(options: argparse.Namespace) -> SSM:
    """The configured model: BP4D's labels with DFEW's, from scratch."""
    torch.manual_seed(0)
    backbone = BackboneConfig(name=options.backbone, image_size=options.size)
    vocabulary = Vocabulary(aus=BP4D_AUS, expressions=BASIC_EXPRESSIONS)
    return SSM(ModelConfig(vocabulary=vocabulary, backbone=backbone, frames=options.frames))


def training_step(model: SSM, options: argparse.Namespace) -> Callable[[], object]:
    """A step on one batch of each side, as training takes it."""
    precision = "bfloat16" if options.dtype == "bfloat16" else "float32"
    config = TrainConfig(precision=precision, compile=options.compile)
    preprocessing = Preprocessing(image_size=options.size)
    step = TrainStep(model, config, device=options.device, preprocessing=preprocessing)
    shape = (options.frames, options.size, options.size, 3)
    generator = torch.Generator().manual_seed(0)
    pixels = [torch.randint(0, 256, (n, *shape), generator=generator).byte() for n in (options.fe, options.au)]
    fe = FEBatch(
        clips=pixels[0],
        labels=torch.zeros(options.fe, dtype=torch.long),
        class_mask=torch.ones(options.fe, len(BASIC_EXPRESSIONS), dtype=torch.bool),
        row_ids=torch.arange(options.fe),
    )
    targets = torch.zeros(options.au, options.frames, len(BP4D_AUS))
    au = AUBatch(pixels[1], targets, torch.ones_like(targets).bool(), torch.arange(options.au))
    fe, au = fe.to(torch.device(options.device)), au.to(torch.device(options.device))
    return lambda: step(fe, au, 0, 100)


def inference(model: SSM, options: argparse.Namespace, sides: tuple[str, ...]) -> Callable[[], object]:
    """A folded forward pass over the sides named."""
    sizes = {"fe_clips": options.fe, "au_clips": options.au}
    shape = (options.frames, 3, options.size, options.size)
    clips = {side: torch.randn(sizes[side], *shape, device=options.device) for side in sides}
    call: Callable[..., object] = torch.compile(model) if options.compile else model
    bfloat16 = options.dtype == "bfloat16"

    def run() -> None:
        model.fold()
        with torch.inference_mode(), torch.autocast(options.device, torch.bfloat16, enabled=bfloat16):
            call(**clips)

    return run


def experts_alone(model: SSM, options: argparse.Namespace, *, train: bool) -> Callable[[], object]:
    """Gate, routing and private experts of the last block over both sides' tokens."""
    layer = [module for module in model.modules() if isinstance(module, ExpertMlp)][-1]
    positions = (options.size // 16) ** 2 + 1
    frames = (options.fe + options.au) * options.frames
    width = layer.gate.in_features
    tokens = torch.randn(frames, positions, width, device=options.device, requires_grad=train)
    call: Callable[..., torch.Tensor] = torch.compile(layer.private) if options.compile else layer.private
    bfloat16 = options.dtype == "bfloat16"
    leaves = [tokens, *layer.parameters()]

    def run() -> None:
        layer.train(train)
        with torch.set_grad_enabled(train), torch.autocast(options.device, torch.bfloat16, enabled=bfloat16):
            out = call(tokens)
        if train:
            out.backward(torch.ones_like(out))
        for leaf in leaves:
            leaf.grad = None

    return run


def measure(options: argparse.Namespace) -> tuple[list[Figure], list[float]]:
    """All figures, and the rates of the rounds."""
    stopwatch = Stopwatch(torch.device(options.device), options.clock)
    model = make_model(options).to(options.device)
    subjects = {
        "training step": training_step(model, options),
        "inference, both sides": inference(model, options, ("fe_clips", "au_clips")),
        "inference, FE side": inference(model, options, ("fe_clips",)),
        "inference, AU side": inference(model, options, ("au_clips",)),
        "experts, forwards": experts_alone(model, options, train=False),
        "experts, both ways": experts_alone(model, options, train=True),
    }
    subjects = {name: run for name, run in subjects.items() if options.only in name}
    plain = argparse.Namespace(**{**vars(options), "compile": False})
    operations = {}
    for name, run in subjects.items():
        operations[name] = count_operations(run if not options.compile else _uncompiled(name, model, plain))
        run()
    rates: list[float] = []
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(options.rounds):
        for name, run in subjects.items():
            # The rate is taken beside every subject: a shared machine changes its speed within a round.
            rates.append(product_rate(stopwatch, getattr(torch, options.dtype)))
            seconds[name].append(stopwatch(run) * rates[-1])
    figures = []
    for name, scaled in seconds.items():
        ratio = statistics.median(operations[name] / value for value in scaled)
        figures.append(_figure(name, operations[name], ratio, statistics.median(rates), options.device))
    return figures, rates


def _uncompiled(name: str, model: SSM, options: argparse.Namespace) -> Callable[[], object]:
    """The subject without torch.compile, whose kernels the counter cannot see into."""
    if name == "training step":
        return training_step(model, options)
    if name.startswith("experts"):
        return experts_alone(model, options, train="both" in name)
    sides = {"FE side": ("fe_clips",), "AU side": ("au_clips",)}
    return inference(model, options, sides.get(name.split(", ")[1], ("fe_clips", "au_clips")))


def _figure(name: str, operations: float, ratio: float, rate: float, device: str) -> Figure:
    targets = GPU_TARGETS if device == "cuda" else CPU_TARGETS
    seconds = operations / rate / ratio
    if name.startswith("experts"):
        return Figure(name, operations / 1e12, seconds, ratio, f"at most {EXPERTS_LIMIT} x", 1 / ratio <= EXPERTS_LIMIT)
    least = targets.get(name)
    return Figure(name, operations / 1e12, seconds, ratio, f"at least {least}" if least else "", ratio >= (least or 0))


def machine(options: argparse.Namespace) -> str:
    """What was measured on."""
    if options.device == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def main() -> int:
    """Measures and prints; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="vit_base_patch16_clip_224.openai")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--fe", type=int, default=1, help="FE clips")
    parser.add_argument("--au", type=int, default=1, help="AU clips")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--only", default="", help="subjects whose name holds this")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.clock == "cpu" and (options.device != "cpu" or torch.get_num_threads() != 1):
        parser.error("--clock cpu is for --device cpu --threads 1: idle threads would count as work")
    figures, rates = measure(options)
    print(f"{machine(options)}; {options.backbone}, {options.dtype}, {options.fe} FE + {options.au} AU clips")
    low, middle, high = (value / 1e9 for value in (min(rates), statistics.median(rates), max(rates)))
    print(f"large product: {low:.0f} to {high:.0f} GFLOP/s, median {middle:.0f}")
    for figure in figures:
        cost = (
            f"{1 / figure.ratio:.2f} x its operations"
            if figure.name.startswith("experts")
            else f"{figure.ratio:.2f} of the floor"
        )
        verdict = "" if not figure.target else f"  ({figure.target}: {'met' if figure.met else 'MISSED'})"
        print(f"{figure.name:24} {figure.teraflop:7.3f} TFLOP {figure.seconds:8.3f} s  {cost}{verdict}")
    if options.json:
        content = {"machine": machine(options), "options": {k: str(v) for k, v in vars(options).items()}}
        options.json.write_text(json.dumps({**content, "figures": [asdict(figure) for figure in figures]}, indent=2))
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
