"""AU nodes and descriptions: against slow float64 loops, and what may and may not depend on what."""

from __future__ import annotations

import math

import pytest
import tiny_model as tiny
import torch
from torch import Tensor
from torch.nn import functional

from ssm import SSM
from ssm.model.config import AUReaderConfig, GraphConfig, ModelConfig, TextConfig
from ssm.model.readers.attention import MultiHead
from ssm.model.readers.graph import AUGraph
from ssm.model.readers.hiva import Described

F, P, D, A, M, HEADS = 3, 6, 16, 5, 4, 2
READER = AUReaderConfig(kind="hiva", graph=GraphConfig(heads=HEADS, neighbours=2))


def _moved(module: torch.nn.Module) -> torch.nn.Module:
    """Away from its start, where gates of zero hide what stands behind them."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return module.double()


def _described(metric: str = "dot", neighbours: int = 2) -> Described:
    torch.manual_seed(0)
    return _moved(Described(D, A, GraphConfig(heads=HEADS, neighbours=neighbours, metric=metric)))  # type: ignore[return-value,arg-type]


def _inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(F, P, D, generator=generator, dtype=torch.float64)
    return x, functional.normalize(torch.randn(A, M, D, generator=generator, dtype=torch.float64), dim=-1)


def _norm(row: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    centred = row - row.sum() / D
    return centred / (centred.square().sum() / D + norm.eps).sqrt() * norm.weight + norm.bias


def _attend(mha: MultiHead, query: Tensor, keys: list[Tensor]) -> tuple[Tensor, Tensor]:
    """One query over keys, head by head; the weights' mean over heads."""
    width, gathered, weights = D // HEADS, [], []
    for head in range(HEADS):
        rows = slice(head * width, (head + 1) * width)
        q = mha.q.weight[rows] @ query
        scores = torch.stack([q @ (mha.k.weight[rows] @ key) / math.sqrt(width) for key in keys])
        share = scores.exp() / scores.exp().sum()
        gathered.append(sum(w * (mha.v.weight[rows] @ key) for w, key in zip(share, keys, strict=True)))
        weights.append(share)
    return mha.out.weight @ torch.cat(gathered) + mha.out.bias, sum(weights) / HEADS


def _alike(one: Tensor, other: Tensor, metric: str) -> float:
    if metric == "l1":
        return -float((one - other).abs().sum())
    return float(one @ other / (one.norm() * other.norm() if metric == "cosine" else 1))


def _slow(net: Described, x: Tensor, texts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The page's equations, one frame, AU, neighbour, text and head at a time."""
    graph = net.graph
    found: list[list[list[Tensor]]] = [[], [], []]
    for f in range(len(x)):
        views = []
        for a in range(A):
            rows = []
            for p in range(P):
                row = x[f, p] @ net.nodes.weight[a] + net.nodes.bias[a]
                centred = row - row.mean()
                row = centred / (centred.square().mean() + 1e-5).sqrt()
                rows.append((row * net.nodes.gain[a] + net.nodes.offset[a]).relu())
            views.append(rows)
        v = [sum(rows) / P for rows in views]
        told = []
        for a in range(A):
            alike = [_alike(v[a], v[b], graph.metric) for b in range(A)]
            least = sorted(alike, reverse=True)[graph.neighbours - 1]
            near = [b for b in range(A) if alike[b] >= least]
            heard = sum(graph.others.weight @ v[b] for b in near) / len(near)
            told.append((v[a] + _norm(heard + graph.own.weight @ v[a], graph.norm)).relu())
        alone_v, alone_t, where = [], [], []
        for a in range(A):
            alone_v.append(_norm(told[a] + _attend(net.fits, told[a], list(texts[a]))[0], net.norm_v))
            looked = [_attend(net.looks, text, views[a]) for text in texts[a]]
            seen = [_norm(t + found_t, net.norm_t) for t, (found_t, _) in zip(texts[a], looked, strict=True)]
            alone_t.append(sum(seen) / len(seen))
            where.append(sum(weights for _, weights in looked) / len(looked))
        v_star = [_norm(one + _attend(net.sees_texts, one, alone_t)[0], net.norm_nodes) for one in alone_v]
        t_star = [_norm(one + _attend(net.sees_nodes, one, alone_v)[0], net.norm_texts) for one in alone_t]
        for part, rows in zip(found, (v_star, t_star, where), strict=True):
            part.append(rows)
    return tuple(torch.stack([torch.stack(rows) for rows in part]) for part in found)  # type: ignore[return-value]


@pytest.mark.parametrize("metric", ["dot", "cosine", "l1"])
def test_it_is_the_equations_of_the_page(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, (x, texts) = _described(metric), _inputs()
    with torch.no_grad():
        slow, fast = _slow(net, x, texts), net(x, texts, where=True)
        monkeypatch.setattr("ssm.model.readers.hiva._ROOM", 2 * x.numel())  # two AUs at a time
        pieces = net(x, texts, where=True)
    for one, other, third in zip(slow, fast, pieces, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(third, other, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(fast[2].sum(-1), torch.ones(F, A, dtype=torch.float64))


def test_made_again_in_the_backward_pass_gradients_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    net, (x, texts) = _described(), _inputs()

    def gradients() -> list[Tensor]:
        v, t, _ = net(x, texts)
        return list(torch.autograd.grad((v * t).sum(), list(net.parameters())))

    again = gradients()
    monkeypatch.setattr("ssm.model.readers.hiva.checkpoint", lambda work, *inputs, **_: work(*inputs))
    torch.testing.assert_close(again, gradients(), atol=1e-12, rtol=1e-12)


def test_without_the_norm_the_graph_is_me_graphaus() -> None:
    """adj / K for D^-1/2 A D^-1/2 where nothing ties."""
    torch.manual_seed(0)
    graph = AUGraph(D, GraphConfig(neighbours=2)).double()
    v = torch.rand(F, A, D, dtype=torch.float64)
    alike = v @ v.transpose(1, 2)
    adjacency = (alike >= alike.topk(2).values[..., -1:]).double()
    degrees = adjacency.sum(-1).rsqrt()
    normalised = degrees[..., None] * adjacency * degrees[:, None]
    torch.testing.assert_close(normalised, adjacency / 2)
    graph.norm = torch.nn.Identity()  # type: ignore[assignment]
    torch.testing.assert_close(graph(v), (v + normalised @ graph.others(v) + graph.own(v)).relu())


def test_all_neighbours_are_a_plain_mean_and_ties_stay() -> None:
    torch.manual_seed(0)
    graph, v = AUGraph(D, GraphConfig(neighbours=A)).double(), torch.rand(F, A, D, dtype=torch.float64)
    torch.testing.assert_close(graph._shares(v), torch.full((F, A, A), 1 / A))
    equal = AUGraph(D, GraphConfig(neighbours=1))._shares(torch.ones(1, A, D))
    torch.testing.assert_close(equal, torch.full((1, A, A), 1 / A))


def test_no_gradient_passes_through_who_is_a_neighbour() -> None:
    graph, v = AUGraph(D, GraphConfig(neighbours=2)), torch.rand(F, A, D, requires_grad=True)
    assert not graph._shares(v).requires_grad


def test_each_au_is_by_itself_until_they_meet() -> None:
    """With the nodes held, another AU's texts change neither v^ nor t^ of this one; what follows does react."""
    net, (x, texts) = _described(), _inputs()
    other = texts.clone()
    other[3] = functional.normalize(torch.randn(M, D, dtype=torch.float64), dim=-1)
    with torch.no_grad():
        sides = []
        for given in (texts, other):
            v, found, _ = net._look(x, given, False)
            sides.append(net.alone(net.graph(v), given, found))
        met = [net.together(*side) for side in sides]
    rest = [0, 1, 2, 4]
    for one, changed in zip(*sides, strict=True):
        assert torch.equal(one[:, rest], changed[:, rest])
        assert not torch.equal(one[:, 3], changed[:, 3])
    for one, changed in zip(*met, strict=True):
        assert (one[:, rest] != changed[:, rest]).any(-1).all()


def test_an_order_of_aus_or_texts_means_nothing() -> None:
    net, (x, texts) = _described(), _inputs()
    order, within = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        v, t, where = net(x, texts, where=True)
        by_text = net(x, texts[:, within], where=True)
        for tensor in net.nodes.parameters():
            tensor.copy_(tensor[order].clone())
        by_au = net(x, texts[order], where=True)
    for one, other, permuted in zip((v, t, where), by_text, by_au, strict=True):
        torch.testing.assert_close(one, other)
        torch.testing.assert_close(one[:, order], permuted)


def test_equal_texts_are_as_one() -> None:
    net, (x, texts) = _described(), _inputs()
    with torch.no_grad():
        once, often = net(x, texts[:, :1]), net(x, texts[:, :1].expand(-1, M, -1))
    torch.testing.assert_close(once[0], often[0])
    torch.testing.assert_close(once[1], often[1])


def _model(**changes: object) -> SSM:
    config = tiny.with_text().model_copy(update={"au_reader": READER, **changes})
    return tiny.small_model(ModelConfig.model_validate(config.model_dump()))


def test_at_the_start_there_are_the_graph_and_norms_alone() -> None:
    model = _model().fold()
    head, clips = model.au_head, tiny.clips(2)
    with torch.no_grad():
        x = model.encode_clips(clips).tokens.flatten(0, 1)
        views = head.described.nodes.views(x, 0, len(tiny.LABELS.aus)).mean(1)
        plain = functional.layer_norm(functional.layer_norm(head.described.graph(views), (16,)), (16,))
        prototypes = model.prototypes()
        texts = torch.cat([prototypes.au_texts, prototypes.aus[:, None]], 1)
        own = functional.layer_norm(functional.layer_norm(texts, (16,)).mean(1), (16,))
        direct = torch.einsum("fad,ad->fa", plain, head.weight[:, 0]) + head.bias[:, 0]
        semantic = 10 * functional.cosine_similarity(plain, own[None], dim=-1)
        output = model(au_clips=clips)
    torch.testing.assert_close(output.au_semantic_logits.flatten(0, 1), semantic, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        output.au_logits, model.smoothing((direct + semantic).view(2, -1, 4)), atol=1e-4, rtol=1e-4
    )


def test_the_mapping_reaches_the_aus_through_the_fused_prototype() -> None:
    model = _model().train()
    model(au_clips=tiny.clips(2)).au_logits.square().sum().backward()
    assert model.mapping.delta_fe_to_au.grad.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": TextConfig(tower=None)}, r"au_reader\.kind 'hiva' reads descriptions: set text\.tower"),
        ({"au_reader": AUReaderConfig(kind="hiva", graph=GraphConfig(heads=3))}, r"heads, 3, must divide it"),
        ({"au_reader": AUReaderConfig(kind="hiva", graph=GraphConfig(heads=2, neighbours=9))}, r"has 4 AUs: ask for"),
        ({"au_reader": AUReaderConfig(kind="hivo")}, r"kind is 'hivo'; there are linear, evidential, hiva"),
        ({"au_reader": READER, "released_behaviour": True}, r"released_behaviour is of 'linear' alone"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_mend(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _model(**changes)
