"""What stays outside compiled graphs. To be imported while something is compiled: `torch.compiler.disable` loads all of
the compiler.
"""

from __future__ import annotations

import torch

from ssm.model import expert_kernels

# The segments' lengths are data: compiled, there would be a graph per batch.
segments = torch.compiler.disable(expert_kernels.segments)  # type: ignore[no-untyped-call]
