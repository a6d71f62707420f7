"""Labelled images and volumes."""

from .folder import NiftiFolder
from .hippocampus import Hippocampus
from .synthetic import SyntheticClasses, SyntheticVolumes

__all__ = ["Hippocampus", "NiftiFolder", "SyntheticClasses", "SyntheticVolumes"]
