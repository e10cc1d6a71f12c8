"""Train: a run on Ray Train, from opening to its saved model: workers, loop, checkpoints, validation, endings.

Does not know what the figures of a finished run are.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
