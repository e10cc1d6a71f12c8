"""The drawn face: who it is, what each AU moves, and the frames that a camera sees of it.

Read order: `identity` (who), `muscles` (what an AU moves), `drawing` and `relief` (curves, folds), `painter`, `camera`,
`render` (frames). Does not know time, corpora or files.
"""
