"""Prior tables and matrices: the published links, and priors made otherwise."""

from __future__ import annotations

import pytest
import torch

from ssm.labels.priors import TABLES, links
from ssm.labels.vocabulary import ACTION_UNITS, BASIC_EXPRESSIONS, BP4D_AUS, DISFA_AUS, EXPRESSIONS, NEUTRAL, Vocabulary
from ssm.model.config import MappingConfig, ModelConfig
from ssm.model.mapping import prior_matrix

BP4D_7 = Vocabulary(aus=BP4D_AUS, expressions=BASIC_EXPRESSIONS)
DISFA_11 = Vocabulary(aus=DISFA_AUS, expressions=EXPRESSIONS)
EVERYTHING = Vocabulary(aus=tuple(ACTION_UNITS), expressions=EXPRESSIONS)


def test_the_authors_tables_depend_on_the_class_count() -> None:
    assert links("authors_bp4d", BP4D_7)["disgust"] == (10, 17)
    assert links("authors_bp4d", Vocabulary(aus=BP4D_AUS, expressions=EXPRESSIONS))["disgust"] == (10, 15)
    assert links("authors_disfa", DISFA_11)["surprise"] == (1, 2, 26)
    basic = Vocabulary(aus=DISFA_AUS, expressions=BASIC_EXPRESSIONS)
    assert links("authors_disfa", basic)["surprise"] == (1, 2, 25, 26)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_on_and_off_stand_where_the_table_says(name: str) -> None:
    prior = prior_matrix(MappingConfig(prior=name, on=0.9, off=0.1), EVERYTHING)
    for row, expression in zip(prior, EXPRESSIONS, strict=True):
        linked = links(name, EVERYTHING)[expression]
        assert row.tolist() == pytest.approx([0.9 if au in linked else 0.1 for au in EVERYTHING.aus])
    assert links(name, EVERYTHING)[NEUTRAL] == ()


def test_every_expression_but_neutral_has_links_in_the_global_table() -> None:
    assert [name for name, aus in links("emfacs", EVERYTHING).items() if not aus] == [NEUTRAL]


def test_uniform_says_nothing_but_pulls_as_strongly() -> None:
    uniform, emfacs = (prior_matrix(MappingConfig(prior=name), EVERYTHING) for name in ("uniform", "emfacs"))
    neutral = EXPRESSIONS.index(NEUTRAL)
    learned = torch.arange(len(EXPRESSIONS)) != neutral
    assert uniform[learned].unique().numel() == 1
    assert torch.equal(uniform[neutral], emfacs[neutral])
    assert uniform.sum().item() == pytest.approx(emfacs.sum().item(), rel=1e-5)


def test_scrambled_is_a_seeded_permutation_of_the_columns() -> None:
    emfacs = prior_matrix(MappingConfig(prior="emfacs"), EVERYTHING)
    first, again, other = (prior_matrix(MappingConfig(prior="scrambled", seed=seed), EVERYTHING) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, emfacs)
    assert sorted(map(tuple, first.T.tolist())) == sorted(map(tuple, emfacs.T.tolist()))


def test_bad_priors_are_refused_with_what_was_expected() -> None:
    with pytest.raises(ValueError, match=r"3 rows of \[2\] cells; the vocabulary asks for 3 rows of 4"):
        ModelConfig(
            vocabulary=Vocabulary(aus=(1, 2, 4, 6), expressions=("happiness", "neutral", "anger")),
            mapping=MappingConfig(prior="explicit", matrix=((1, 0),) * 3),
        )
    with pytest.raises(ValueError, match="explicit"):
        MappingConfig(prior="explicit")
    with pytest.raises(ValueError, match=r"off is 2\.0"):
        MappingConfig(off=2.0)
    with pytest.raises(ValueError, match="negative or non-finite"):
        ModelConfig(
            vocabulary=Vocabulary(aus=(1,), expressions=("anger",)),
            mapping=MappingConfig(prior="explicit", matrix=((-1.0,),)),
        )
