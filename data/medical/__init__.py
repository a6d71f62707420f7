"""Labelled images and volumes."""

from .chase_db1 import ChaseDB1
from .decathlon import Decathlon
from .folder import NiftiFolder
from .hippocampus import Hippocampus
from .membrane import Membrane
from .pneumonia import PneumoniaMNIST
from .synthetic import SyntheticClasses, SyntheticVolumes

__all__ = [
    "ChaseDB1",
    "Decathlon",
    "Hippocampus",
    "Membrane",
    "NiftiFolder",
    "PneumoniaMNIST",
    "SyntheticClasses",
    "SyntheticVolumes",
]
