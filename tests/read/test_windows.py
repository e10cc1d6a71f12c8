"""The state machine between faces and rows, against a slow reference, over random comings and goings."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from numpy.typing import NDArray

from ssm.interface import Smoothing
from ssm_platform.faces.squares import Square
from ssm_platform.read.windows import Assembler, Clip, ClipAnswer, Face, Row, Window

T, AUS, REACH = 4, 3, 2
SQUARE = Square(0.5, 0.5, 1)


def picture(face_id: int, frame: int) -> NDArray[np.uint8]:
    """A crop that names its face and frame in its pixels."""
    return np.full((2, 2, 3), [face_id, frame % 256, frame // 256], np.uint8)


def model(clip: Clip) -> ClipAnswer:
    """AU probabilities that depend on each crop alone, an expression that depends on the clip."""
    face, low, high = clip.crops[:, 0, 0].T.astype(int)
    frame = low + 256 * high
    au = np.stack([np.sin(frame * (unit + 1) + face) ** 2 for unit in range(AUS)], 1).astype(np.float32)
    affect = np.stack([np.sin(frame + face), np.cos(frame * 2 + face)], 1).astype(np.float32)
    why = np.zeros((2, AUS), np.float32)
    return ClipAnswer(au, np.float32([frame[0], face[0]]), why, affect, au_uncertainty=au / 2)


def vote(probabilities: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Two of the five frames around, edges repeated."""
    padded = np.pad(probabilities > 0.5, ((REACH, REACH), (0, 0)), mode="edge")
    return sum(padded[i : i + len(probabilities)].astype(int) for i in range(2 * REACH + 1)) >= 2


def presence(seed: int, frames: int, faces: int) -> NDArray[np.bool_]:
    """Which face is in which frame: long stays and short ones."""
    generator = np.random.default_rng(seed)
    stays = [
        np.repeat(generator.random(frames) < 0.7, generator.integers(1, 12, frames))[:frames] for _ in range(faces)
    ]
    return np.stack(stays, 1)


def answer(assembler: Assembler, asked: deque[Clip], most: int, results: list[Row | Window]) -> None:
    """Answer the oldest clips until at most `most` wait."""
    while len(asked) > most:
        clip = asked.popleft()
        assembler.answer(clip, model(clip))
    results.extend(assembler.results())


def run(present: NDArray[np.bool_], delay: int) -> list[Row | Window]:
    assembler, asked, results = Assembler(T, vote, REACH), deque[Clip](), []
    for number, here in enumerate(present):
        faces = [Face(int(face), (0, 0, 1, 1), 0.5, picture(face, number), SQUARE) for face in np.flatnonzero(here)]
        asked.extend(assembler.frame(number, number / 25, faces))
        answer(assembler, asked, delay, results)
    asked.extend(assembler.finish())
    answer(assembler, asked, 0, results)
    return results


def stretches(column: NDArray[np.bool_]) -> list[range]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], column.astype(int), [0]])))
    return [range(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("delay", [0, 3])
def test_rows_are_those_of_the_slow_reference(seed: int, delay: int) -> None:
    present = presence(seed, 60, 3)
    rows = [result for result in run(present, delay) if isinstance(result, Row)]
    assert [(row.frame, row.face_id) for row in rows] == [
        (frame, face)
        for frame in range(len(present))
        for face in (np.flatnonzero(present[frame]).tolist() or [None])
    ]  # fmt: skip
    by_place = {(row.frame, row.face_id): row for row in rows}
    for face in range(present.shape[1]):
        for stretch in stretches(present[:, face]):
            frame = np.array(stretch)
            probability = np.stack([np.sin(frame * (u + 1) + face) ** 2 for u in range(AUS)], 1).astype(np.float32)
            expected = vote(probability)
            for at, number in enumerate(stretch):
                row = by_place[number, face]
                np.testing.assert_allclose(row.au_probability, probability[at], atol=1e-5)
                np.testing.assert_array_equal(row.au_present, expected[at])
                np.testing.assert_allclose(row.au_uncertainty, probability[at] / 2, atol=1e-6)


def test_every_frame_is_asked_once_in_clips_of_consecutive_frames() -> None:
    present = presence(3, 200, 2)
    assembler = Assembler(T, vote, REACH)
    clips = []
    for number, here in enumerate(present):
        faces = [Face(int(face), (0, 0, 1, 1), 1.0, picture(face, number), SQUARE) for face in np.flatnonzero(here)]
        clips += assembler.frame(number, None, faces)
    clips += assembler.finish()
    covered = [(clip.face_id, clip.start + k) for clip in clips for k in range(clip.count)]
    assert sorted(covered) == sorted((face, frame) for frame, face in np.argwhere(present).tolist())
    for clip in clips:
        frames = clip.crops[:, 0, 0, 1].astype(int)
        assert frames.tolist() == [clip.start + min(k, clip.count - 1) for k in range(T)]


def test_what_is_held_does_not_grow_with_the_video() -> None:
    assembler, asked, sizes = Assembler(T, vote, REACH), deque[Clip](), []
    for number in range(400):
        asked.extend(assembler.frame(number, None, [Face(0, (0, 0, 1, 1), 1.0, picture(0, number), SQUARE)]))
        answer(assembler, asked, 2, [])
        run_ = assembler._runs[0]
        sizes.append(len(assembler._waiting) + len(run_.crops) + len(run_.values) + run_.votes.held)
    assert max(sizes[200:]) <= max(sizes[:100])


def test_windows_tell_the_expression_of_their_new_frames() -> None:
    present = np.ones((10, 1), bool)
    windows = [result for result in run(present, 1) if isinstance(result, Window)]
    assert [(window.start, window.frames) for window in windows] == [(0, 4), (4, 4), (8, 2)]
    rows = [result for result in run(present, 1) if isinstance(result, Row)]
    assert [row.expression[0] for row in rows] == [0] * 4 + [4] * 4 + [8] * 2


def test_affect_is_smoothed_over_each_run_and_never_across_a_gap() -> None:
    present = np.ones((23, 1), bool)
    present[9] = False
    assembler, asked, results = Assembler(T, vote, REACH, Smoothing(affect=3, aus=1, expressions=2)), deque[Clip](), []
    for number, here in enumerate(present):
        faces = [Face(int(face), (0, 0, 1, 1), 0.5, picture(face, number), SQUARE) for face in np.flatnonzero(here)]
        asked.extend(assembler.frame(number, number / 25, faces))
        answer(assembler, asked, 1, results)
    asked.extend(assembler.finish())
    answer(assembler, asked, 0, results)
    rows = {row.frame: row for row in results if isinstance(row, Row)}
    assert rows[9].affect is None
    for first, last in ((0, 9), (10, 23)):
        for frame in range(first, last):
            near = range(max(first, frame - 3), min(last, frame + 4))
            expected = np.mean([[np.sin(other), np.cos(other * 2)] for other in near], axis=0)
            assert rows[frame].affect == pytest.approx(expected, abs=1e-5)
            near = range(max(first, frame - 1), min(last, frame + 2))
            aus = np.mean([[np.sin(other * (unit + 1)) ** 2 for unit in range(AUS)] for other in near], axis=0)
            assert rows[frame].au_probability == pytest.approx(aus, abs=1e-5)
            near = range(max(first, frame - 2), min(last, frame + 3))
            starts = [first + (other - first) // T * T for other in near]  # a clip's expression is its first frame
            assert rows[frame].expression == pytest.approx([np.mean(starts), 0], abs=1e-4)
