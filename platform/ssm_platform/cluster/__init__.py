"""Cluster: joining one, describing one (AWS, Kubernetes), predicting one.

Does not know runs, corpora or models.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
