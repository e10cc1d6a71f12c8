"""The renderer: every AU changes its own part of the face, more with intensity; everything follows from the seed."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from ssm.labels.vocabulary import ACTION_UNITS, EXPRESSIONS
from ssm_platform.synthetic import dynamics
from ssm_platform.synthetic.behaviour import ACTIVE, association, co_occurrence, prevalence
from ssm_platform.synthetic.face.identity import draw_identity
from ssm_platform.synthetic.face.muscles import AU_ORDER
from ssm_platform.synthetic.lab import LAB_CORPORA
from ssm_platform.synthetic.performance import FACE_SCALE, person, stream, wild_performance
from ssm_platform.synthetic.sample import SCRIPT, sample_course, write_sample
from ssm_platform.synthetic.sheets import au_sheet, model_face, people_sheet, still_frames
from ssm_platform.synthetic.spec import WildSpec
from ssm_platform.synthetic.wild import draw_peaks, wild_plan

SIZE = 112
# Where an AU shows, in face units: lateral from, to, y from, to (both sides).
REGIONS = {
    1: (0.0, 0.5, -1.05, -0.2),
    2: (0.2, 0.95, -1.05, -0.15),
    4: (0.0, 0.75, -0.75, -0.1),
    5: (0.15, 0.7, -0.4, 0.05),
    6: (0.1, 1.0, -0.65, 0.55),
    7: (0.15, 0.8, -0.35, 0.1),
    9: (0.0, 0.75, -0.6, 0.6),
    10: (0.0, 0.6, 0.1, 0.95),
    12: (0.0, 1.0, -0.2, 1.0),
    14: (0.2, 0.75, 0.45, 0.95),
    15: (0.0, 0.6, 0.5, 1.15),
    17: (0.0, 0.5, 0.5, 1.4),
    20: (0.0, 0.85, 0.45, 1.1),
    23: (0.0, 0.45, 0.5, 1.0),
    24: (0.0, 0.45, 0.5, 1.05),
    25: (0.0, 0.5, 0.5, 1.45),
    26: (0.0, 0.95, 0.45, 1.65),
}


def changes(number: int, levels: tuple[float, ...]) -> np.ndarray:
    """Mean absolute change of each pixel (levels H W) against the face at rest."""
    frames = still_frames(model_face(), [{}, *({number: level} for level in levels)], SIZE)
    return np.abs(np.array(frames[1:], float) - frames[0]).mean(axis=-1)


def inside(region: tuple[float, float, float, float]) -> np.ndarray:
    pixels = ((np.arange(SIZE) + 0.5) / SIZE - 0.5) / FACE_SCALE
    across, down = np.abs(pixels)[None, :], pixels[:, None]
    return (across >= region[0]) & (across <= region[1]) & (down >= region[2]) & (down <= region[3])


@pytest.mark.parametrize("number", list(ACTION_UNITS))
def test_an_au_changes_its_own_region_and_more_with_intensity(number: int) -> None:
    change = changes(number, (1.5, 3.0, 5.0))
    share = change[-1][inside(REGIONS[number])].sum() / change[-1].sum()
    assert share > 0.85, f"only {share:.2f} of the change is where AU{number} acts"
    slight, marked, most = change.sum(axis=(1, 2))
    assert 1.2 * slight < marked < most / 1.1
    assert (change[0] > 8).sum() >= 8, "a slight AU is visible"


def test_no_two_aus_look_alike() -> None:
    shown = np.array(still_frames(model_face(), [{}, *({number: 5.0} for number in ACTION_UNITS)], SIZE), float)
    codes = (shown[1:] - shown[0]).reshape(len(ACTION_UNITS), -1)
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    likeness = codes @ codes.T - np.eye(len(codes))
    first, second = np.unravel_index(likeness.argmax(), likeness.shape)
    assert likeness.max() < 0.75, f"AU{AU_ORDER[first]} and AU{AU_ORDER[second]} look alike"


def test_a_clip_is_a_pure_function_of_its_seed() -> None:
    def frames(seed: int) -> np.ndarray:
        rng = stream(seed, "clip")
        peaks = np.where(rng.random(len(AU_ORDER)) < 0.3, 4.0, 0.0)
        intensity = dynamics.clip_course(rng, 5, 25.0, peaks)
        return np.array(list(wild_performance(person(seed, "dfew", 3), rng, intensity, 25.0, 1.0, 64).frames()))

    assert np.array_equal(frames(1), frames(1))
    assert not np.array_equal(frames(1), frames(2))


def test_people_differ() -> None:
    faces = [draw_identity(np.random.default_rng(seed)) for seed in range(40)]
    pictures = np.array([still_frames(face, [{}], 64)[0] for face in faces], float)
    apart = np.abs(pictures[:, None] - pictures[None]).mean(axis=(2, 3, 4))[np.triu_indices(40, 1)]
    assert apart.min() > 2
    assert len({face.hair_style for face in faces}) >= 5


@pytest.mark.parametrize("corpus", [name for name, row in LAB_CORPORA.items() if row.published])
def test_labels_follow_the_published_prevalence(corpus: str) -> None:
    wished = prevalence(corpus, LAB_CORPORA[corpus].published)
    drive = dynamics.Drive(wished, np.linalg.cholesky(co_occurrence()), 0.25)
    rng = np.random.default_rng(0)
    courses = [dynamics.lab_course(rng, 300, 25.0, drive) for _ in range(120)]
    seen = np.mean([dynamics.coded(rng, course, 25.0, 0.45) >= ACTIVE for course in courses], axis=(0, 1))
    columns = [AU_ORDER.index(number) for number in LAB_CORPORA[corpus].published]
    assert np.abs(seen - wished)[columns].max() < 0.05


def test_aus_that_belong_together_occur_together() -> None:
    wished = np.full(len(AU_ORDER), 0.3)
    drive = dynamics.Drive(wished, np.linalg.cholesky(co_occurrence()), 0.25)
    rng = np.random.default_rng(1)
    active = np.concatenate([dynamics.lab_course(rng, 200, 25.0, drive) for _ in range(60)]) >= ACTIVE
    correlation = np.corrcoef(active.T)

    def between(first: int, second: int) -> float:
        return float(correlation[AU_ORDER.index(first), AU_ORDER.index(second)])

    assert min(between(6, 12), between(1, 2), between(25, 26)) > 0.3
    assert max(between(12, 15), between(24, 25)) < 0


def test_a_clip_goes_from_onset_over_apex_to_offset() -> None:
    rng, peaks = np.random.default_rng(2), np.zeros(len(AU_ORDER))
    peaks[AU_ORDER.index(12)] = 4.0
    courses = np.array([dynamics.clip_course(rng, 75, 25.0, peaks)[:, AU_ORDER.index(12)] for _ in range(200)])
    assert courses.max(axis=1).min() > 3, "every clip holds its apex"
    assert (courses[:, 0] < courses.max(axis=1) - 1).mean() > 0.5
    assert np.abs(np.diff(courses, axis=1)).max() < 2
    assert np.abs(dynamics.clip_course(rng, 75, 25.0, 0 * peaks)).max() < 1.5, "a face at rest stays below the code"


def test_coders_are_unsure_at_the_edges_only() -> None:
    drive = dynamics.Drive(np.full(len(AU_ORDER), 0.3), np.eye(len(AU_ORDER)), 0.25)
    course = dynamics.lab_course(np.random.default_rng(3), 4000, 25.0, drive)
    seen = dynamics.coded(np.random.default_rng(4), course, 25.0, 0.45) >= ACTIVE
    wrong = seen != (course >= ACTIVE)
    assert 0.005 < wrong.mean() < 0.08
    assert np.abs(course[wrong] - ACTIVE).mean() < 0.5 * np.abs(course - ACTIVE).mean()
    lone = seen[1:-1] & ~seen[:-2] & ~seen[2:]
    assert not lone.any(), "an event of one frame is never coded"


def test_drawn_aus_follow_the_association_truth() -> None:
    wild = WildSpec()
    for row, expression in enumerate(EXPRESSIONS):
        rng = stream(5, expression)
        drawn = np.mean([draw_peaks(rng, expression, EXPRESSIONS, wild)[0] for _ in range(1500)], axis=0)
        assert np.abs(drawn - association(EXPRESSIONS, wild.blend)[row]).max() < 0.055


def test_a_plan_keeps_people_in_one_fold_and_classes_at_their_quota() -> None:
    wild = WildSpec(clips=700, people=150, label_noise=0.06, imbalance=0.0)
    plan = wild_plan("dfew", wild, seed=1)
    assert {clip.who: clip.fold for clip in plan} == {clip.who: clip.fold for clip in reversed(plan)}
    counts = np.unique([clip.expression for clip in plan], return_counts=True)[1]
    assert counts.tolist() == [100] * 7
    noise = np.mean([clip.expression != clip.labelled for clip in plan])
    assert 0.03 < noise < 0.09


def test_the_sample_video_shows_each_expression_in_turn(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "sample.mp4", size=160, seconds=0.4)
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 10 * len(SCRIPT)
    apexes = sample_course(0.4)[5::10]
    for shown, apex in zip(SCRIPT.values(), apexes, strict=True):
        assert {AU_ORDER[column] for column in np.flatnonzero(apex > 1)} == set(shown)


def test_sheets_show_every_au_and_every_expression() -> None:
    assert au_sheet(size=64).shape == (6 * (64 + 26), 9 * 64, 3)
    assert people_sheet(size=64, rows=2).shape == (64 + 64 + 26, 11 * 64, 3)
