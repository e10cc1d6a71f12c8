"""Both ends of a model: pixels to its input, its probabilities to decisions.

Geometry and normalisation, which frames make a clip, thresholds and vote over time. Travels with saved weights, and
training, evaluation and serving share it. Does not know the model.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
