"""Corpora: one reader a corpus, in its owner's layout, to manifests; the doctor that looks before anything is used.

The registry finds readers by file: a new corpus is a new module with a `CORPUS`. Does not know splits, plans or models.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
