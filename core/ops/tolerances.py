"""How far a kernel's result may be from the float64 reference: norm of the difference over norm of the reference.

One table for every operator, backend and gradient; the tests read it.
"""

from __future__ import annotations

import torch

RELATIVE_ERROR = {torch.float32: 2e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}
