"""The Mamba core: operators, scans and mixers. Needs torch, numba and triton; knows nothing of Lightning, Hydra or any domain."""
