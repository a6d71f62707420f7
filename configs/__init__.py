"""Hydra configs: what every run has in groups here, and a folder for each domain with its own."""
