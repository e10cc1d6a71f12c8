"""torch's compiler, which takes seconds to load: only a program that compiles something pays for it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
