"""Preflight: refuses, before anything starts, what would hang or fail later, and says which setting to change.

Each check returns refusals (setting, what was found, the rule); `require` raises them all at once, so one look mends a
config. Nothing here starts Ray, reads pixels or changes a config. `checks` lists what is asked when.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
