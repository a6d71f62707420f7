"""Modules that mix tokens, all with one signature: mixer(x, grid=None, state=None, seq_idx=None) -> (y, state)."""
