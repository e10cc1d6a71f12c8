"""Synthetic faces: a parametric renderer driven by AU intensities, and corpora written in their owners' grammars.

Read order: `identity` (who), `muscles` (what an AU moves), `drawing` and `relief` (curves, folds), `painter`, `camera`,
`render` (frames); `behaviour` (tables), `dynamics` (time), `performance` (a clip), `lab` and `wild` (files), `corpus`.
"""

from ssm_platform.synthetic.corpus import CORPORA, CorpusWork, PlacedJob, corpus_jobs, run_job, write_corpus
from ssm_platform.synthetic.spec import PRESETS, LabSpec, SyntheticSpec, WildSpec
from ssm_platform.synthetic.truth import Truth, read_truth

__all__ = [
    "CORPORA",
    "PRESETS",
    "CorpusWork",
    "LabSpec",
    "PlacedJob",
    "SyntheticSpec",
    "Truth",
    "WildSpec",
    "corpus_jobs",
    "read_truth",
    "run_job",
    "write_corpus",
]
