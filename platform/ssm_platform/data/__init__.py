"""Data: which clip comes when, as a pure function; how it is decoded on Ray Data; the proof of what was used.

Does not know the model or the training loop.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
