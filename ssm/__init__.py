"""SSM: joint recognition of facial action units and expressions, as plain PyTorch (arXiv 2604.10541).

Knows no Ray, no files of corpora and no server; see `ssm.model` for the model and `ssm.step` for its training step.
"""
