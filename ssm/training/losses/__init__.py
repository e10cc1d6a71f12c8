"""The losses of a step: an open list (`table`), their weights, running means and ramps (method, section 6).

A loss is a row of the table; what a row adds up lies in a file of its own. Knows no optimiser and no other worker.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
