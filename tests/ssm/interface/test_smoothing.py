"""Fill, box, Gaussian, gate and threshold against plain loops; a stream gives the bits of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssm.interface.smoothing import BoxStream, box, fill, gate, gaussian, reached

RNG = np.random.default_rng(3)
ENCODER = ("anger", "contempt", "happiness", "neutral")
HEAD = ("neutral", "anger", "happiness", "other")


def slow_box(scores: np.ndarray, half: int, lengths: list[int]) -> np.ndarray:
    out, start = [], 0
    for length in lengths:
        rows = scores[start : start + length]
        out += [rows[max(0, i - half) : i + half + 1].mean(0) for i in range(length)]
        start += length
    return np.array(out)


def slow_fill(scores: np.ndarray, present: np.ndarray) -> np.ndarray:
    out = scores.copy()
    there = [i for i in range(len(scores)) if present[i]]
    for i in range(len(scores)):
        before, after = [p for p in there if p <= i], [q for q in there if q >= i]
        if not before or not after:
            out[i] = scores[(after or before)[0 if after else -1]]
        elif before[-1] != after[0]:
            u = (i - before[-1]) / (after[0] - before[-1])
            out[i] = (1 - u) * scores[before[-1]] + u * scores[after[0]]
    return out


@pytest.mark.parametrize("half", [0, 1, 3, 50])
def test_the_box_shrinks_at_edges_and_never_crosses_a_sequence(half: int) -> None:
    scores, lengths = RNG.normal(size=(30, 2)), [7, 1, 22]
    assert np.allclose(box(scores, half, lengths), slow_box(scores, half, lengths), atol=1e-12)


def test_a_constant_signal_stays_constant_and_no_window_is_the_identity() -> None:
    scores = RNG.normal(size=(9, 3))
    assert np.array_equal(box(scores, 0), scores)
    assert np.allclose(box(np.full((9, 2), 0.3), 4), 0.3, atol=1e-15)
    assert np.allclose(gaussian(np.full((9, 1), 0.3), np.arange(9) * 7, 1e4, 4), 0.3, atol=1e-15)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 12))
def test_a_stream_gives_the_bits_of_the_whole(pieces: list[int], half: int) -> None:
    scores = np.random.default_rng(sum(pieces)).normal(size=(sum(pieces), 2))
    stream, out = BoxStream(half), []
    for piece in np.split(scores, np.cumsum(pieces)[:-1]):
        out.append(stream.push(piece))
        assert len(piece) + half >= len(stream.push(scores[:0]))  # nothing more leaves without more rows
    assert np.array_equal(np.concatenate([*out, stream.finish()]), box(scores, half))


def test_a_finished_stream_begins_another_sequence() -> None:
    scores = RNG.normal(size=(12, 1))
    stream = BoxStream(2)
    for first in (0, 6):
        part = np.concatenate([stream.push(scores[first : first + 6]), stream.finish()])
        assert np.array_equal(part, box(scores[first : first + 6], 2))


@pytest.mark.parametrize("marks", ["110010", "011100", "000001", "111111"])
def test_absent_frames_lie_on_the_line_between_present_ones(marks: str) -> None:
    present, scores = np.array([mark == "1" for mark in marks]), RNG.normal(size=(6, 2))
    assert np.allclose(fill(scores, present), slow_fill(scores, present), atol=1e-12)
    assert np.array_equal(fill(scores, present)[present], scores[present])


def test_filling_without_any_present_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="2 marks for 2 frames, 0 present"):
        fill(np.zeros((2, 1)), np.zeros(2, bool))


def test_the_gaussian_weighs_listed_neighbours_by_their_distance_in_frames() -> None:
    scores, frames, lengths = RNG.normal(size=(8, 2)), np.array([1, 5, 6, 40, 3, 9, 11, 90]), [4, 4]
    found = gaussian(scores, frames, 200.0, 2, lengths)
    for i in range(8):
        lo, hi = (0, 4) if i < 4 else (4, 8)
        near = [j for j in range(lo, hi) if abs(i - j) <= 2]
        weights = np.array([np.exp(-((frames[i] - frames[j]) ** 2) / 200.0) for j in near])
        assert np.allclose(found[i], weights @ scores[near] / weights.sum(), atol=1e-12)


def test_the_gate_answers_by_name_above_its_threshold_and_never_other() -> None:
    encoder = RNG.dirichlet(np.ones(4) * 0.3, size=200)
    head = RNG.dirichlet(np.ones(4), size=200)
    found = gate(encoder, ENCODER, head, HEAD, 0.6)
    for row in range(200):
        shared = {name: encoder[row, ENCODER.index(name)] for name in ("anger", "happiness", "neutral")}
        best = max(shared, key=shared.__getitem__)
        expected = best if shared[best] > 0.6 else HEAD[head[row].argmax()]
        assert HEAD[found[row]] == expected
    only_other = gate(encoder, ENCODER, np.tile([0, 0, 0, 1.0], (200, 1)), HEAD, 0.6)
    assert set(only_other[encoder[:, [0, 2, 3]].max(1) > 0.6]) <= {0, 1, 2}
    assert np.array_equal(gate(encoder, ENCODER, head, HEAD, 1.0), head.argmax(1))


def test_a_gate_without_a_shared_class_is_refused() -> None:
    with pytest.raises(ValueError, match="share no class: anger; other"):
        gate(np.ones((1, 1)), ("anger",), np.ones((1, 1)), ("other",), 0.5)


def test_thresholds_are_reached_and_senseless_settings_refused() -> None:
    assert reached(np.array([[0.5, 0.2]]), (0.5, 0.3)).tolist() == [[True, False]]
    with pytest.raises(ValueError, match=r"half_window is -1: must be in 0..1000"):
        box(np.zeros((3, 1)), -1)
    with pytest.raises(ValueError, match=r"sequence lengths sum to 4 .* frames: 3"):
        box(np.zeros((3, 1)), 1, [4])
    with pytest.raises(ValueError, match="sigma is 0"):
        gaussian(np.zeros((3, 1)), np.arange(3), 0, 1)
