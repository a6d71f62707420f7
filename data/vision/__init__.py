"""Image data sets: digits (nothing to download), Fashion-MNIST, CIFAR-10, and the user's own folders."""

from .cifar10 import CIFAR10
from .digits import Digits
from .fashion_mnist import FashionMNIST
from .image_folder import ImageFolder

__all__ = ["CIFAR10", "Digits", "FashionMNIST", "ImageFolder"]
