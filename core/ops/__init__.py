"""Functions on tensors, a folder each.

reference.py is the definition (plain PyTorch), cpu.py the Numba kernels, gpu.py the Triton kernels, __init__.py the public
function: checks, autograd, choice of backend.
"""
