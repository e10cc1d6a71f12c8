"""Media: pixels out of videos, pictures and shards, exact by frame number, checked before they are trusted.

Does not know faces, labels, corpora or the model.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
