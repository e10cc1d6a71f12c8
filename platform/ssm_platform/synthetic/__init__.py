"""Synthetic faces: a parametric renderer driven by AU intensities, and corpora written in their owners' grammars.

Read order: `identity` (who), `muscles` (what an AU moves), `drawing` and `relief` (curves, folds), `painter`, `camera`,
`render` (frames); `behaviour` (tables), `dynamics` (time), `performance` (a clip), `lab` and `wild` (files), `corpus`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
