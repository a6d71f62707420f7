"""Vision: image classification. Importing it registers its models with timm."""

from . import models

__all__ = ["models"]
