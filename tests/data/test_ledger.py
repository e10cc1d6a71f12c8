"""How often a block may end its decoder."""

from __future__ import annotations

from ssm_platform.data.ledger import TRIES, Ledger


def test_a_block_that_ends_its_decoder_each_time_is_given_up() -> None:
    ledger = Ledger()
    assert [ledger.begin("one", 7) for _ in range(TRIES + 1)] == list(range(1, TRIES + 2))
    ledger.end("one", 7)
    assert ledger.begin("one", 7) == 1 == ledger.begin("another", 7)
