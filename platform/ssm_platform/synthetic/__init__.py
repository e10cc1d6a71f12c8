"""Synthetic faces: a parametric renderer driven by AU intensities, and corpora written in their owners' grammars.

Read order: `face` (the drawing), `behaviour` (tables), `dynamics` (time), `performance` (a clip), `lab` and `wild`
(files), `corpus`. Does not know readers' code paths, plans or models.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
