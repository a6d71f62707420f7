"""`make gpu`: on a machine with a card, hold every kernel to the reference, then measure it; see README.md beside this file.

Nothing here needs Hydra, Lightning, MONAI, Numba or an installed polymamba: `python benchmarks/gpu/run.py` is enough.
"""
