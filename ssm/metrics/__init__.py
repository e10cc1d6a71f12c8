"""Figures of merit with intervals over subjects: F1, AUC, AP, UAR, WAR, calibration (method, section 9).

Numpy in, typed values out. Does not know models, corpora or reports.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
