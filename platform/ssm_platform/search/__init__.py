"""Search: sweeps over prompt styles, priors and any other field on Ray Tune, their findings and their page.

Does not know how a run trains or is scored.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
