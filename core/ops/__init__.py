"""Functions on tensors, a folder each: reference.py (the definition), cpu.py (Numba), gpu.py (Triton), __init__.py (the public function)."""
