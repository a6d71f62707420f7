"""Sound: mixtures of voices, speech in noise, sounds with names."""

from .digits import DigitMixtures
from .labelled import AudioFolder, Esc10, SpokenDigits
from .pairs import MixtureFolder, NoisySpeech
from .voices import Voices

__all__ = ["AudioFolder", "DigitMixtures", "Esc10", "MixtureFolder", "NoisySpeech", "SpokenDigits", "Voices"]
