"""Models: the registry of saved models (names, versions, aliases) and what a saved folder says of itself.

Does not know how a model was trained or is served.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
