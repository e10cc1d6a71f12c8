"""What the maps learn from the model's own AU predictions: shares of clips, within the mass of the prior."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_training as tiny
import torch

from ssm.labels.vocabulary import Vocabulary
from ssm.model.config import MappingConfig, TextConfig
from ssm.model.mapping import PriorMapping
from ssm.training.evidence import map_evidence
from ssm.training.losses import LossConfig

LABELS = Vocabulary(aus=(1, 4, 6, 12), expressions=("happiness", "sadness", "neutral", "anger"))
EVIDENCE = LossConfig(map_evidence=1.0)


def test_at_its_minimum_the_maps_are_the_shares_of_the_clips() -> None:
    generator = np.random.default_rng(0)
    expressions = np.repeat(np.arange(4), (40, 30, 50, 20))
    shown = generator.random((140, 4)) * np.array([[0.9, 0.1, 0.8, 0.7], [0.2, 0.9, 0.3, 0.1]] * 2)[expressions]
    mapping = PriorMapping(MappingConfig(), LABELS)
    logits = torch.from_numpy(np.log(shown / (1 - shown)))[:, None].expand(-1, 3, -1)
    optimizer = torch.optim.Adam(mapping.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        loss = map_evidence(mapping, logits, torch.from_numpy(expressions), torch.ones(140, dtype=torch.bool)) / 140
        torch.autograd.backward(loss)
        optimizer.step()
    sums = np.stack([shown[expressions == row].sum(0) for row in range(4)])
    to_fe, to_au = mapping.au_to_fe().detach().numpy(), mapping.fe_to_au().detach().numpy()
    prior = mapping.prior.numpy()
    taught = [0, 1, 3]
    for row in taught:
        np.testing.assert_allclose(to_fe[row], prior[row].sum() * sums[row] / sums[row].sum(), rtol=0.02)
    for column in range(4):
        share = sums[taught, column] / sums[taught, column].sum()
        np.testing.assert_allclose(to_au[column, taught], prior[taught, column].sum() * share, rtol=0.02)
    np.testing.assert_array_equal(to_fe[2], prior[2])  # neutral is never learned
    np.testing.assert_array_equal(to_au[:, 2], prior[2])


def test_clips_without_a_class_and_neutral_ones_say_nothing() -> None:
    mapping = PriorMapping(MappingConfig(), LABELS)
    logits, known = torch.randn(3, 2, 4), torch.tensor([False, True, True])
    labels = torch.tensor([0, LABELS.expressions.index("neutral"), 1])
    found = map_evidence(mapping, logits, labels, known)
    assert found == map_evidence(mapping, logits[2:], labels[2:], known[2:])
    assert map_evidence(mapping, logits[:2], labels[:2], known[:2]) == 0


def test_it_moves_the_corrections_and_no_other_weight_in_the_first_step() -> None:
    plain, told = (tiny.tiny_step(config) for config in (tiny.FAST, tiny.fast_with(loss=EVIDENCE)))
    for step in (plain, told):
        step.config = step.config.model_copy(update={"optim": step.config.optim.model_copy(update={"clip_norm": 1e9})})
        step(tiny.fe_batch(0), tiny.au_batch(0), 0, 20)
    moved = {
        name
        for (name, one), (_, other) in zip(plain.model.named_parameters(), told.model.named_parameters(), strict=True)
        if not torch.equal(one, other)
    }
    assert moved == {"mapping.delta_au_to_fe", "mapping.delta_fe_to_au"}


@pytest.mark.parametrize("slices", [1, 2])
def test_a_step_of_one_side_takes_no_evidence(slices: int) -> None:
    """Without AU clips nothing teaches the AU head: what it sees is no evidence."""
    ends = []
    for config in (tiny.fast_with(accumulation=slices), tiny.fast_with(accumulation=slices, loss=EVIDENCE)):
        step = tiny.tiny_step(config)
        step(tiny.fe_batch(0), None, 0, 20)
        ends.append(step.model.state_dict())
    assert all(torch.equal(one, other) for one, other in zip(ends[0].values(), ends[1].values(), strict=True))


def test_accumulation_changes_rounding_only() -> None:
    ends = []
    for slices in (1, 2):
        step = tiny.tiny_step(tiny.fast_with(accumulation=slices, loss=EVIDENCE))
        step(tiny.fe_batch(0), tiny.au_batch(0), 0, 20)
        ends.append(step.optimizer.state[step.model.get_parameter("mapping.delta_au_to_fe")]["exp_avg"])
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("changes", [{"text": TextConfig(tower=None)}, {"mapping": MappingConfig(learn="none")}])
def test_evidence_for_maps_that_do_not_learn_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"loss\.map_evidence is for maps that learn, and this model has none"):
        tiny.tiny_step(tiny.fast_with(loss=EVIDENCE), **changes)
