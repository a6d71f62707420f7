"""Labelled images and volumes."""

from .folder import NiftiFolder
from .hippocampus import Hippocampus
from .synthetic import SyntheticVolumes

__all__ = ["Hippocampus", "NiftiFolder", "SyntheticVolumes"]
