"""Readers of corpora with valence and arousal: one module a corpus, each with a `CORPUS`.

Does not know what is done with them.
"""
