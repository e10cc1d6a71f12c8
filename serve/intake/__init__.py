"""Intake: request bodies read under limits, and the folder in which uploads lie while they are worked on.

Does not know what an upload holds.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
