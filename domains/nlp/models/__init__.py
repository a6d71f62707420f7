"""Language models."""

from .classifier import TextClassifier
from .language_model import LanguageModel

__all__ = ["LanguageModel", "TextClassifier"]
