"""Time series: models that forecast them."""
