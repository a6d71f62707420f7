"""Rooms to hear voices in: impulse responses of shoeboxes by the image method, from pyroomacoustics (the extra "audio")."""

from __future__ import annotations

from functools import cache

import numpy as np

from ...core.errors import UserError

SIDES = ((3.0, 8.0), (3.0, 8.0), (2.4, 3.5))  # metres, from and to
ECHO = (0.15, 0.5)  # seconds until an echo is 60 dB down
WALL = 0.4  # metres that everybody keeps from it


def check_rooms() -> None:
    """Raises UserError where rooms cannot be simulated."""
    from importlib.util import find_spec

    if find_spec("pyroomacoustics") is None:
        raise UserError(
            "rooms are simulated by pyroomacoustics, which is not installed", do='pip install "polymamba[audio]"'
        )


@cache
def responses(seed: int, speakers: int, rate: int) -> list[np.ndarray]:
    """How a room answers each of its speakers, (time) float32 of power 1, at one microphone.

    Args:
        seed: which the room, its echo and all places follow from.
    """
    import pyroomacoustics

    drawn = np.random.default_rng(seed)
    sides = np.array([drawn.uniform(*each) for each in SIDES])
    absorption, order = pyroomacoustics.inverse_sabine(drawn.uniform(*ECHO), sides)
    room = pyroomacoustics.ShoeBox(
        sides, fs=rate, materials=pyroomacoustics.Material(min(absorption, 0.99)), max_order=min(order, 12)
    )
    room.add_microphone(drawn.uniform(WALL, sides - WALL))
    for _ in range(speakers):
        room.add_source(drawn.uniform(WALL, sides - WALL))
    room.compute_rir()
    found = [room.rir[0][number] for number in range(speakers)]
    return [(each / np.sqrt(np.sum(each**2))).astype(np.float32) for each in found]


def in_room(signal: np.ndarray, response: np.ndarray) -> np.ndarray:
    """A signal (time) as it is heard in a room, of the same length."""
    from scipy.signal import fftconvolve

    return fftconvolve(signal, response)[: len(signal)].astype(np.float32)
