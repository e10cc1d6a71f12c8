"""The doctor: is a corpus tree as its owner ships it, and what is in it? Looks, counts, tells; changes nothing.

Does not know splits, training or pixels.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
