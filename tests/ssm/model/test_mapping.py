"""The maps: mass of a row kept, neutral fixed, labels without order, masks as if the rest were not there."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssm.labels.vocabulary import ACTION_UNITS, EXPRESSIONS, NEUTRAL, Vocabulary
from ssm.model.config import MappingConfig
from ssm.model.mapping import PriorMapping

aus = st.lists(st.sampled_from(sorted(ACTION_UNITS)), min_size=1, unique=True)
expressions = st.lists(st.sampled_from(EXPRESSIONS), min_size=1, unique=True)
vocabularies = st.builds(lambda a, e: Vocabulary(aus=tuple(a), expressions=tuple(e)), aus, expressions)
seeds = st.integers(0, 2**31)


def _mapping(vocabulary: Vocabulary, seed: int = 0, **changes: object) -> PriorMapping:
    """A mapping whose corrections have been learned: far from their start."""
    mapping = PriorMapping(MappingConfig(**changes), vocabulary)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in mapping.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    return mapping


def _rows(count: int, seed: int) -> Tensor:
    rows = torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=-1)


@settings(max_examples=40, deadline=None)
@given(vocabularies, seeds)
def test_rows_keep_the_mass_of_the_prior(vocabulary: Vocabulary, seed: int) -> None:
    mapping = _mapping(vocabulary, seed)
    torch.testing.assert_close(mapping.au_to_fe().sum(1), mapping.prior.sum(1))
    torch.testing.assert_close(mapping.fe_to_au().sum(1), mapping.prior.sum(0))
    assert (mapping.au_to_fe() >= 0).all()
    assert (mapping.fe_to_au() >= 0).all()


@settings(max_examples=20, deadline=None)
@given(vocabularies.filter(lambda v: NEUTRAL in v.expressions), seeds)
def test_neutral_is_never_learned(vocabulary: Vocabulary, seed: int) -> None:
    mapping = _mapping(vocabulary, seed)
    neutral = vocabulary.neutral_index
    assert neutral is not None
    assert torch.equal(mapping.au_to_fe()[neutral], mapping.prior[neutral])
    assert torch.equal(mapping.fe_to_au()[:, neutral], mapping.prior[neutral])
    to_fe, to_au = mapping.au_to_fe(), mapping.fe_to_au()
    (to_fe[neutral].sum() + to_au[:, neutral].sum() + (to_fe.pow(2).sum() + to_au.pow(2).sum())).backward()
    assert mapping.delta_au_to_fe.grad is not None
    assert mapping.delta_fe_to_au.grad is not None
    assert not mapping.delta_au_to_fe.grad[neutral].any()
    assert not mapping.delta_fe_to_au.grad[:, neutral].any()


@settings(max_examples=30, deadline=None)
@given(vocabularies, seeds, st.randoms(use_true_random=False))
def test_permuted_labels_permute_the_maps(vocabulary: Vocabulary, seed: int, random: object) -> None:
    e_order, a_order = list(range(len(vocabulary.expressions))), list(range(len(vocabulary.aus)))
    random.shuffle(e_order)  # type: ignore[attr-defined]
    random.shuffle(a_order)  # type: ignore[attr-defined]
    permuted = Vocabulary(
        aus=tuple(vocabulary.aus[i] for i in a_order), expressions=tuple(vocabulary.expressions[i] for i in e_order)
    )
    first, second = _mapping(vocabulary, seed), PriorMapping(MappingConfig(), permuted)
    with torch.no_grad():
        second.delta_au_to_fe.copy_(first.delta_au_to_fe[e_order][:, a_order])
        second.delta_fe_to_au.copy_(first.delta_fe_to_au[a_order][:, e_order])
        second.gate_au_to_fe.copy_(first.gate_au_to_fe)
        second.gate_fe_to_au.copy_(first.gate_fe_to_au)
    torch.testing.assert_close(second.au_to_fe(), first.au_to_fe()[e_order][:, a_order])
    torch.testing.assert_close(second.fe_to_au(), first.fe_to_au()[a_order][:, e_order])
    t_E, t_A = _rows(len(e_order), 1), _rows(len(a_order), 2)
    fused_E, fused_A = first.fuse(t_E, t_A, first())
    permuted_E, permuted_A = second.fuse(t_E[e_order], t_A[a_order], second())
    torch.testing.assert_close(permuted_E, fused_E[e_order])
    torch.testing.assert_close(permuted_A, fused_A[a_order])


def test_the_start_is_the_prior_with_gates_of_a_tenth() -> None:
    vocabulary = Vocabulary(aus=(6, 12, 4), expressions=("happiness", "neutral", "anger"))
    mapping = PriorMapping(MappingConfig(), vocabulary)
    torch.testing.assert_close(mapping.au_to_fe(), mapping.prior, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(mapping.fe_to_au(), mapping.prior.T, atol=1e-6, rtol=1e-6)
    t_E, t_A = _rows(3, 1), _rows(3, 2)
    fused_E, fused_A = mapping.fuse(t_E, t_A, mapping())
    torch.testing.assert_close(fused_E, torch.nn.functional.normalize(t_E + 0.1 * mapping.prior @ t_A, dim=-1))
    torch.testing.assert_close(fused_A, torch.nn.functional.normalize(t_A + 0.1 * mapping.prior.T @ t_E, dim=-1))


def _fresh(learn: str, vocabulary: Vocabulary) -> PriorMapping:
    return PriorMapping(MappingConfig(learn=learn), vocabulary)  # type: ignore[arg-type]


def test_ablations_fix_what_they_name() -> None:
    vocabulary = Vocabulary(aus=(6, 12, 4), expressions=("happiness", "neutral", "anger"))
    t_E, t_A = _rows(3, 1), _rows(3, 2)
    learned = {
        learn: {name for name, parameter in _fresh(learn, vocabulary).named_parameters() if parameter.requires_grad}
        for learn in ("both", "au_to_fe", "fe_to_au", "none")
    }
    assert learned["both"] == {"delta_au_to_fe", "delta_fe_to_au", "gate_au_to_fe", "gate_fe_to_au"}
    assert learned["none"] == {"gate_au_to_fe", "gate_fe_to_au"}
    assert learned["au_to_fe"] == {"delta_au_to_fe", "gate_au_to_fe"}
    assert learned["fe_to_au"] == {"delta_fe_to_au", "gate_fe_to_au"}
    assert torch.equal(_fresh("au_to_fe", vocabulary).fuse(t_E, t_A, _fresh("au_to_fe", vocabulary)())[1], t_A)
    assert torch.equal(_fresh("fe_to_au", vocabulary).fuse(t_E, t_A, _fresh("fe_to_au", vocabulary)())[0], t_E)
