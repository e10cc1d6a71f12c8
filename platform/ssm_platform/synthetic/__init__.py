"""Synthetic faces: a parametric renderer driven by AU intensities, and corpora written in their owners' grammars."""
