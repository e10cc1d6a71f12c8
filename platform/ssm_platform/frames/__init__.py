"""The frame baseline: an encoder's features of every frame, cached once, and small heads that train on them in minutes.

After the strong simple entry of the ABAW challenges (arXiv 2603.12693). Does not know HTTP or sweeps.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
