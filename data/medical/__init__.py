"""Labelled images and volumes."""

from .folder import NiftiFolder
from .hippocampus import Hippocampus
from .pneumonia import PneumoniaMNIST
from .synthetic import SyntheticClasses, SyntheticVolumes

__all__ = ["Hippocampus", "NiftiFolder", "PneumoniaMNIST", "SyntheticClasses", "SyntheticVolumes"]
