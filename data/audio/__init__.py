"""Sound: mixtures of voices, speech in noise, sounds with names."""

from .voices import Voices

__all__ = ["Voices"]
