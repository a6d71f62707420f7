"""Functions on tensors, a folder each.

    __init__.py      the public function: checks, choice of backend
    reference.py     its definition in plain PyTorch, any device and dtype
    cpu.py, gpu.py   the Numba and Triton kernels, their code in cpu_kernels.py and gpu_kernels.py
    registration.py  what makes it a PyTorch operator: autograd, shapes for torch.compile
    decode.py        one token of it on the CPU, past the operator

selective_scan and causal_conv1d have all of these. state_space_duality is matrix products on the CPU and has no decode.py.
trapezoidal_scan is its reference, and runs on state_space_duality's kernels. gated_norm, running_angle, turned_keys and
gated_sum stand around these scans: one pass each on a CPU, their references elsewhere. selective_layer is one step of autograd
over several. linear is PyTorch's own product but for a few rows and large ones on a CPU. mamba_decode and mamba2_decode compute
one token of a whole mixer, on the CPU and without gradients; their references are made of the other operators. cpu/ is the
toolkit of the CPU kernels.
"""
