"""Evaluate: predictions over a split, scores with intervals, and the report of a run.

Always under a named protocol. Does not know HTTP or sweeps.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
