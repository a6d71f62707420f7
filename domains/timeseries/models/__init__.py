"""Forecasting models, a file per paper, all called as model(x, marks=None)."""
