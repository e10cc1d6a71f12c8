"""Readers of corpora as their owners ship them: one file per corpus, one table, one typed result.

    reading = read_corpus("bp4d", "/data/BP4D", aus=(6, 12))     # options: `corpora()[name].options`
    reading.manifest, reading.issues, reading.rows

`base` says what a corpus is; `labels`, `text`, `sources` and `folds` are what the readers share; `registry` holds the
table.
"""

from ssm_platform.corpora.base import Corpus, ReadOptions
from ssm_platform.corpora.registry import (
    CorpusRefused,
    corpora,
    corpus_named,
    read_corpus,
    refusal,
    settings_of,
    survey,
)

__all__ = [
    "Corpus",
    "CorpusRefused",
    "ReadOptions",
    "corpora",
    "corpus_named",
    "read_corpus",
    "refusal",
    "settings_of",
    "survey",
]
