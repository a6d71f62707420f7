"""Data sets of images: digits (nothing to download), Fashion-MNIST, CIFAR-10, the user's own folders and shards; of images with
masks: drawn shapes (nothing to download), the user's own, CHASE_DB1, membranes; of point clouds: solids (nothing to download),
ModelNet10; of graphs: motifs in trees (nothing to download), the TU sets; of videos: moving shapes (nothing to download), the
user's own; of several bands, to be sharpened: drawn scenes (nothing to download), the user's own."""

from .bands_folder import BandsFolder
from .cifar10 import CIFAR10
from .clouds import Solids
from .digits import Digits
from .drawn_bands import DrawnBands
from .drawn_shapes import DrawnShapes
from .fashion_mnist import FashionMNIST
from .graphs import GraphMotifs
from .image_folder import ImageFolder
from .mask_folder import ChaseDB1, EMMembrane, MaskFolder
from .modelnet10 import ModelNet10
from .tu import TU
from .video_folder import VideoFolder
from .videos import MovingShapes
from .webdataset import WebDataset

__all__ = [
    "CIFAR10", "TU", "BandsFolder", "ChaseDB1", "Digits", "DrawnBands", "DrawnShapes", "EMMembrane", "FashionMNIST", "GraphMotifs",
    "ImageFolder", "MaskFolder", "ModelNet10", "MovingShapes", "Solids", "VideoFolder",
    "WebDataset",
]  # fmt: skip
