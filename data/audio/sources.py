"""Where the data sets of sounds come from."""

from __future__ import annotations

from ..sources import Source

VOICES = Source(
    title="Voices made by a formula",
    homepage="polymamba.data.audio.voices",
    citation="none",
    licence="Apache-2.0",
    protocol="speakers drawn from a seed, other ones for training, validation and test",
)

FSDD = Source(
    title="Free Spoken Digit Dataset",
    homepage="https://github.com/Jakobovski/free-spoken-digit-dataset",
    citation="Z. Jackson et al.: Free Spoken Digit Dataset, 2018",
    licence="CC BY-SA 4.0",
    protocol="6 speakers, 10 digits, 50 takes each at 8 kHz; the set's own split: takes 0 to 4 are for testing",
    folder="fsdd",
)

ESC10 = Source(
    title="ESC-10, environmental sounds",
    homepage="https://github.com/karolpiczak/ESC-10",
    citation="K. J. Piczak: ESC, Dataset for Environmental Sound Classification, ACM Multimedia 2015",
    licence="CC BY 3.0",
    protocol="fold 1 for training, fold 2 for validation and testing by halves; the published numbers are of five folds",
    folder="esc10_folds12",
)
