"""Tables of events: who took which item, and when. Computed sessions, Amazon reviews, and the user's own files."""

from .amazon import Beauty, Sports, Toys, VideoGames
from .interactions import Interactions
from .sessions import Sessions

__all__ = ["Beauty", "Interactions", "Sessions", "Sports", "Toys", "VideoGames"]
