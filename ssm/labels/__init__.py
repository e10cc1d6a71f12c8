"""Labels: what can be recognised, what FACS says of it, and the texts that describe it.

Vocabularies of AUs and expressions, tables of prior links, prompt styles. Tables and their checks, no torch at import.
Does not know the model, files of corpora, or training.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
