"""Runs: what a run is (configuration, recipes), what it reads (splits, manifests, plan), and whether it can start.

Does not know how training proceeds.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
