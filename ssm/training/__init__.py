"""Training: batches, augmentation, losses, mixup, optimiser and the step (method, section 6).

Exact over workers and micro-batches; distribution comes in as a `Collective`. Does not know Ray, files of corpora, or
how long a run is.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
