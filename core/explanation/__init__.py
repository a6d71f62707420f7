"""Explaining what a model did: the attention hidden in its mixers (arXiv 2403.01590), and pictures of it."""

from .draw import draw_image, draw_matrix, draw_text
from .maps import METHODS, attribution, explain, raw, rollout
from .matrices import hidden_attention, mean_hidden_attention

__all__ = [
    "METHODS", "attribution", "draw_image", "draw_matrix", "draw_text", "explain", "hidden_attention",
    "mean_hidden_attention", "raw", "rollout",
]  # fmt: skip
