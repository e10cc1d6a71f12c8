"""Planted worlds: does the map find an association that its prior gets wrong, and what crosses from task to task?

    python bench/mapping.py map [--seeds 5] [--steps 800]     # which setting learns the map
    python bench/mapping.py unlabelled                        # AUs and expressions without one label
    python bench/mapping.py people                           # AU corpora of 1 to 27 people, alone and not

A world is an association P(AU | expression) of 12 AUs and 7 expressions that departs from EMFACS in 30 % of its links,
so that the prior correlates with it to 0.61, and a way to draw: every AU adds a pattern of its own to an 8 x 8 picture,
every person another, and there is noise. The network is the method's parts (maps, gates, prototypes with contexts and
projection, temporal parts, heads), its losses and its step, over two linear layers in place of the backbone and fixed
vectors in place of the text tower: a run takes seconds. AU clips show AUs independently of each other, expression clips
by the association; tests are people nobody trained on. Each seed is another world and another start, so intervals
(t over seeds) are for both.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional

from ssm.interface.preprocessing import Preprocessing, normalise
from ssm.labels import BASIC_EXPRESSIONS, BP4D_AUS, NEUTRAL, Vocabulary, links
from ssm.model.config import AUTimeConfig, ExpressionTimeConfig, MappingConfig
from ssm.model.heads import SemanticHead
from ssm.model.mapping import PriorMapping
from ssm.model.network import SSMOutput
from ssm.model.temporal import AUSmoothing, ExpressionTime, LocalFrameAttention
from ssm.training.batch import AUBatch, FEBatch
from ssm.training.losses import LossConfig
from ssm.training.optim import OptimConfig
from ssm.training.step import TrainConfig, TrainStep

LABELS = Vocabulary(aus=BP4D_AUS, expressions=BASIC_EXPRESSIONS)
AUS, EXPRESSIONS = len(LABELS.aus), len(LABELS.expressions)
NOT_NEUTRAL = [row for row, name in enumerate(LABELS.expressions) if name != NEUTRAL]
LINKED = np.array([[au in links("emfacs", LABELS)[name] for au in LABELS.aus] for name in LABELS.expressions])
SIDE, FRAMES, WIDTH, BATCH, TEXT = 8, 4, 32, 24, 64
PIXELS = Preprocessing(image_size=SIDE)
OPTIM = OptimConfig(visual_encoder=1e-3, experts=1e-3, rest=1e-3, warmup=0.05, milestones=(0.75, 0.92))
AU_CLIPS_OF_A_PERSON = 40

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Clips:
    """Drawn clips with all there is to know about them."""

    pixels: Tensor  # uint8 N T H W 3
    expressions: NDArray[np.intp]  # N
    aus: NDArray[np.bool_]  # N A, the same on all frames


class World:
    """An association and a way to draw faces."""

    def __init__(self, seed: int, moved: float = 0.3) -> None:
        self.generator = np.random.default_rng(seed)
        self.patterns = self.generator.standard_normal((AUS, SIDE, SIDE, 3)) * 3
        linked = LINKED.copy()
        pairs = np.argwhere(LINKED)
        for row, column in pairs[self.generator.permutation(len(pairs))[: round(moved * len(pairs))]]:
            free = np.flatnonzero(~LINKED[row] & ~linked[row])
            linked[row, column], linked[row, self.generator.choice(free)] = False, True
        self.association = np.where(linked, 0.7, 0.08)
        self.association[LABELS.expressions.index(NEUTRAL)] = 0.04

    def expression_clips(self, count: int, people: int = 400) -> Clips:
        expressions = self.generator.integers(0, EXPRESSIONS, count)
        return self._drawn(expressions, self.generator.random((count, AUS)) < self.association[expressions], people)

    def au_clips(self, people: int) -> Clips:
        count = people * AU_CLIPS_OF_A_PERSON
        return self._drawn(np.zeros(count, np.intp), self.generator.random((count, AUS)) < 0.25, people)

    def _drawn(self, expressions: NDArray[np.intp], aus: NDArray[np.bool_], people: int) -> Clips:
        count, draw = len(aus), self.generator
        faces = draw.standard_normal((people, SIDE, SIDE, 3)) * 20
        shown = (aus * draw.uniform(0.6, 1.4, aus.shape)) @ self.patterns.reshape(AUS, -1)
        still = 128 + faces[np.arange(count) % people] + shown.reshape(count, SIDE, SIDE, 3)
        pictures = still[:, None] + draw.standard_normal((count, FRAMES, SIDE, SIDE, 3)) * 30
        return Clips(torch.from_numpy(pictures.clip(0, 255).astype(np.uint8)), expressions, aus)


class Network(nn.Module):
    """The method's parts over two linear layers and fixed vectors as texts."""

    texts: Tensor

    def __init__(self, mapping: MappingConfig) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(2), nn.Linear(3 * SIDE * SIDE, 64), nn.GELU(), nn.Linear(64, WIDTH))
        self.register_buffer("texts", functional.normalize(torch.randn(EXPRESSIONS + AUS, TEXT), dim=-1))
        self.contexts = nn.Parameter(torch.zeros(EXPRESSIONS + AUS, TEXT))
        self.projection = nn.Linear(TEXT, WIDTH)
        self.mapping = PriorMapping(mapping, LABELS)
        self.expression_time = ExpressionTime(WIDTH, FRAMES, ExpressionTimeConfig(heads=2, head_width=16, hidden=64))
        self.au_time = LocalFrameAttention(WIDTH, AUTimeConfig(heads=2))
        self.smoothing = AUSmoothing(AUS, AUTimeConfig(), released=False)
        self.fe_head = SemanticHead(WIDTH, EXPRESSIONS, 0.1, 0.01)
        self.au_head = SemanticHead(WIDTH, AUS, 0.1, 0.01)

    def forward(
        self, fe_clips: Tensor | None = None, au_clips: Tensor | None = None, aus_of_fe: bool = False, **_: Any
    ) -> SSMOutput:
        rows = functional.normalize(self.projection(self.texts + self.contexts), dim=-1)
        t_E, t_A = self.mapping.fuse(rows[:EXPRESSIONS], rows[EXPRESSIONS:], self.mapping())
        fe = au = (None, None)
        seen = None
        if fe_clips is not None:
            frames = self.encoder(fe_clips)
            fe = self.fe_head(self.expression_time(frames), t_E)
            seen = self._aus(frames.detach(), t_A)[0].detach() if aus_of_fe else None
        if au_clips is not None:
            au = self._aus(self.encoder(au_clips), t_A)
        return SSMOutput(fe[0], fe[1], au[0], au[1], fe_au_logits=seen)

    def _aus(self, frames: Tensor, t_A: Tensor) -> tuple[Tensor, Tensor | None]:
        logits, semantic = self.au_head(self.au_time(frames), t_A)
        return self.smoothing(logits), semantic


@dataclass(frozen=True)
class Setting:
    """A way to train in a world."""

    mapping: Mapping[str, Any] = field(default_factory=dict)  # fields of MappingConfig
    rate: float = 1e-2  # of D1 and D2: the method's
    evidence: float = 0.0
    told: bool = False  # the prior is the true association
    people: int = 27  # of the AU corpus
    expressions: bool = True  # whether there are expression clips
    aus: bool = True
    hidden_aus: int = 0  # AUs that no AU clip labels
    hidden_expressions: int = 0  # expressions that no expression clip labels


@dataclass
class Found:
    """What came of a run, on 3,000 clips of people nobody trained on."""

    map_r: float
    back_r: float
    auc: Floats  # A
    uar: float
    zero_shot: dict[str, float]  # by read-out: mean AUC of the hidden labels
    pull: float  # mean over the run of the correlation of D1's negative gradient with truth - map
    noise: float  # mean |mean gradient| / rms of D1's cells: pure noise gives 0.18


def run(seed: int, setting: Setting, steps: int) -> Found:
    """Train in world `seed` and look."""
    world = World(seed)
    fe, au = world.expression_clips(3000), world.au_clips(setting.people)
    test = world.expression_clips(3000, people=3000)
    hidden = np.random.default_rng(seed)
    hidden_aus = np.sort(hidden.choice(AUS, setting.hidden_aus, replace=False))
    hidden_fe = np.sort(hidden.choice(NOT_NEUTRAL, setting.hidden_expressions, replace=False))
    torch.manual_seed(seed)
    mapping = dict(setting.mapping)
    if setting.told:
        mapping |= {"prior": "explicit", "matrix": tuple(map(tuple, world.association.clip(0.02).tolist()))}
    network = Network(MappingConfig(**mapping))
    optim = OPTIM.model_copy(update={"mapping": setting.rate})
    config = TrainConfig(optim=optim, loss=LossConfig(map_evidence=setting.evidence), seed=seed)
    step = TrainStep(network, config, device="cpu", preprocessing=PIXELS)
    pulls, noises = [], []
    for number in range(steps):
        draw = np.random.default_rng((seed, number))
        fe_rows, au_rows = draw.integers(0, len(fe.aus), BATCH), draw.integers(0, len(au.aus), BATCH)
        step(
            _fe_batch(fe, fe_rows, hidden_fe) if setting.expressions else None,
            _au_batch(au, au_rows, hidden_aus) if setting.aus else None,
            number,
            steps,
        )
        if number % 50 == 49 and setting.expressions and network.mapping.delta_au_to_fe.requires_grad:
            pull, noise = _gradient(step, network, world)
            pulls.append(pull)
            noises.append(noise)
    with step.averaged():
        found = _look(network, world, test, hidden_aus, hidden_fe)
    found.pull, found.noise = (float(np.mean(values)) if values else np.nan for values in (pulls, noises))
    return found


def _fe_batch(clips: Clips, rows: NDArray[np.intp], hidden: NDArray[np.intp]) -> FEBatch:
    labels = torch.from_numpy(clips.expressions[rows])
    mask = torch.ones(len(rows), EXPRESSIONS, dtype=torch.bool)
    mask[:, hidden] = False
    mask[np.isin(clips.expressions[rows], hidden)] = False  # a clip of a class that nobody labels is without label
    return FEBatch(clips.pixels[rows], labels, mask, torch.from_numpy(rows))


def _au_batch(clips: Clips, rows: NDArray[np.intp], hidden: NDArray[np.intp]) -> AUBatch:
    targets = torch.from_numpy(clips.aus[rows]).float()[:, None].expand(-1, FRAMES, -1).contiguous()
    mask = torch.ones_like(targets, dtype=torch.bool)
    mask[..., hidden] = False
    return AUBatch(clips.pixels[rows], targets, mask, torch.from_numpy(rows))


def _gradient(step: TrainStep, network: Network, world: World) -> tuple[float, float]:
    """Of D1, as Adam's means hold it: does it point to the truth, and how steady is it."""
    state = step.optimizer.state[network.mapping.delta_au_to_fe]
    mean, rms = state["exp_avg"].numpy(), np.sqrt(state["exp_avg_sq"].numpy()) + 1e-12
    gap = world.association - network.mapping.au_to_fe().detach().numpy()
    return correlation(-mean, gap), float((np.abs(mean) / rms)[NOT_NEUTRAL].mean())


@torch.no_grad()
def _look(
    network: Network, world: World, test: Clips, hidden_aus: NDArray[np.intp], hidden_fe: NDArray[np.intp]
) -> Found:
    pixels = normalise(test.pixels, PIXELS)
    output = network(fe_clips=pixels, au_clips=pixels)
    to_fe, to_au = network.mapping.au_to_fe().numpy(), network.mapping.fe_to_au().numpy()
    aus = output.au_logits.mean(1).sigmoid().numpy()
    expressions = output.fe_logits.softmax(-1).numpy()
    likeliest = expressions.argmax(1)
    recalls = [(likeliest[test.expressions == row] == row).mean() for row in range(EXPRESSIONS)]
    known_aus, known_fe = (np.setdiff1d(np.arange(n), h) for n, h in ((AUS, hidden_aus), (EXPRESSIONS, hidden_fe)))
    through = {
        "AU prototype": (output.au_semantic_logits.mean(1).numpy(), test.aus, hidden_aus),
        "AU map": (expressions[:, known_fe] @ to_au[:, known_fe].T, test.aus, hidden_aus),
        "FE prototype": (output.fe_semantic_logits.numpy(), np.eye(EXPRESSIONS)[test.expressions], hidden_fe),
        "FE map": (_alike(aus[:, known_aus], to_fe[:, known_aus]), np.eye(EXPRESSIONS)[test.expressions], hidden_fe),
    }
    return Found(
        map_r=correlation(to_fe, world.association),
        back_r=correlation(to_au.T, world.association),
        auc=np.array([roc_auc_score(test.aus[:, au], aus[:, au]) for au in range(AUS)]),
        uar=float(np.mean(recalls)),
        zero_shot={
            name: float(np.mean([roc_auc_score(true[:, one], scores[:, one]) for one in of]))
            for name, (scores, true, of) in through.items()
            if len(of)
        },
        pull=np.nan,
        noise=np.nan,
    )


def _alike(aus: Floats, rows: Floats) -> Floats:
    """Correlation of each clip's AU probabilities, against the mean clip, with each row of the map (N E)."""
    seen, wished = aus - aus.mean(0), rows - rows.mean(0)
    norms = np.linalg.norm(seen, axis=1)[:, None] * np.linalg.norm(wished, axis=1)
    return np.asarray(seen @ wished.T / np.maximum(norms, 1e-9))


def correlation(one: Floats, other: Floats) -> float:
    """Pearson's r over all cells but neutral's."""
    return float(np.corrcoef(one[NOT_NEUTRAL].ravel(), other[NOT_NEUTRAL].ravel())[0, 1])


def interval(values: Sequence[float] | Floats) -> str:
    """Mean and 95 % interval over seeds."""
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
    reach = float(t.ppf(0.975, max(len(values) - 1, 1))) * spread / np.sqrt(len(values))
    return "" if np.isnan(mean) else f"{mean:.3f} ± {reach:.3f}"


MAP: Mapping[str, Setting] = {
    "prior, fixed": Setting({"learn": "none"}),
    "as published": Setting(),
    "gate 0.5": Setting({"gate": 0.5}),
    "gate 0.9, rate x 10": Setting({"gate": 0.9}, rate=0.1),
    "map_evidence=1": Setting(evidence=1.0),
    "map_evidence=1, gate 0.9": Setting({"gate": 0.9}, evidence=1.0),
    "true map given": Setting({"learn": "none"}, told=True),
}
UNLABELLED: Mapping[str, Setting] = {
    "as published": Setting(hidden_aus=3, hidden_expressions=2),
    "map_evidence=1": Setting(evidence=1.0, hidden_aus=3, hidden_expressions=2),
    "true map given, gate 0.9": Setting({"learn": "none", "gate": 0.9}, told=True, hidden_aus=3, hidden_expressions=2),
    "true map given, gate 0.1": Setting({"learn": "none"}, told=True, hidden_aus=3, hidden_expressions=2),
}


Results = Callable[[Setting], list[Found]]
"""The runs of a setting, one a seed."""


def map_table(results: Results, settings: Mapping[str, Setting]) -> Iterator[str]:
    yield "| setting | r of AU→FE map | r of FE→AU map | AU AUC | UAR | pull of D1's gradient | its steadiness |"
    yield "|---|---|---|---|---|---|---|"
    for name, setting in settings.items():
        found = results(setting)
        columns = [[getattr(one, what) for one in found] for what in ("map_r", "back_r", "uar", "pull", "noise")]
        auc = [float(one.auc.mean()) for one in found]
        cells = [interval(column) for column in (*columns[:2], auc, *columns[2:])]
        yield f"| {name} | {' | '.join(cells)} |"
    bounds = np.array([most(World(seed)) for seed in range(1, len(found) + 1)])
    yield f"| the most that maps can hold | {interval(bounds[:, 0])} | {interval(bounds[:, 1])} |  |  |  |  |"


def most(world: World) -> tuple[float, float]:
    """r of P(AU | expression) and of P(expression | AU), each within the mass that the prior gives it."""
    prior = np.where(LINKED, 1.0, 0.02)
    to_fe = prior.sum(1, keepdims=True) * world.association / world.association.sum(1, keepdims=True)
    told, mass = world.association[NOT_NEUTRAL], prior[NOT_NEUTRAL].sum(0)
    back = prior.copy()
    back[NOT_NEUTRAL] = mass * told / told.sum(0)
    return correlation(to_fe, world.association), correlation(back, world.association)


def unlabelled_table(results: Results, settings: Mapping[str, Setting]) -> Iterator[str]:
    names = ("AU prototype", "AU map", "FE prototype", "FE map")
    yield f"| 3 AUs and 2 expressions without a label | {' | '.join(f'AUC, {name}' for name in names)} |"
    yield "|---|---|---|---|---|"
    for name, setting in settings.items():
        found = results(setting)
        yield f"| {name} | {' | '.join(interval([one.zero_shot[read] for one in found]) for read in names)} |"


def people_table(results: Results, _: Mapping[str, Setting]) -> Iterator[str]:
    yield "| trained on | figure | alone | with the other task | gain, paired |"
    yield "|---|---|---|---|---|"
    for people in (1, 3, 9, 27):
        alone, both = results(Setting(people=people, expressions=False)), results(Setting(people=people))
        name = f"AU clips of {people} {'person' if people == 1 else 'people'}"
        yield _gain(name, "AU AUC", [[float(one.auc.mean()) for one in found] for found in (alone, both)])
    alone = results(Setting(aus=False))
    yield _gain("3,000 expression clips", "UAR", [[one.uar for one in found] for found in (alone, both)])


def _gain(name: str, figure: str, found: Sequence[Sequence[float]]) -> str:
    alone, both = found
    gains = [other - one for one, other in zip(alone, both, strict=True)]
    return f"| {name} | {figure} | {interval(alone)} | {interval(both)} | {interval(gains)} |"


STUDIES: Mapping[str, tuple[Callable[[Results, Mapping[str, Setting]], Iterator[str]], Mapping[str, Setting]]] = {
    "map": (map_table, MAP),
    "unlabelled": (unlabelled_table, UNLABELLED),
    "people": (people_table, {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=tuple(STUDIES))
    parser.add_argument("--seeds", type=int, default=5, help="worlds, and starts in them")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--only", nargs="+", metavar="SETTING", help="these rows of map or unlabelled alone")
    options = parser.parse_args()
    torch.set_num_threads(1)

    def results(setting: Setting) -> list[Found]:
        return [run(seed, setting, options.steps) for seed in range(1, options.seeds + 1)]

    print(f"<!-- python {' '.join(sys.argv)} -->\n")
    study, settings = STUDIES[options.study]
    if unknown := [name for name in options.only or () if name not in settings]:
        parser.error(f"no setting {unknown[0]!r}; there are: {', '.join(settings) or 'none in this study'}")
    for line in study(results, {name: settings[name] for name in options.only or settings}):
        print(line, flush=True)


if __name__ == "__main__":
    main()
