"""Explaining what a model did: the attention hidden in its mixers (arXiv 2403.01590), and pictures of it."""

from .draw import draw_image, draw_matrix, draw_text, heat_over
from .maps import METHODS, attribution, check_method, explain, explain_stages, part_in_answer, raw, rollout, walked_maps
from .matrices import can_unroll, hidden_attention, mean_hidden_attention

__all__ = [
    "METHODS", "attribution", "can_unroll", "check_method", "draw_image", "draw_matrix", "draw_text", "explain",
    "explain_stages", "heat_over", "hidden_attention", "mean_hidden_attention", "part_in_answer", "raw", "rollout", "walked_maps",
]  # fmt: skip
