"""Labelled images and volumes."""

from .synthetic import SyntheticVolumes

__all__ = ["SyntheticVolumes"]
