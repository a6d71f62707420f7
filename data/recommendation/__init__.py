"""Tables of events: who took which item, and when. Computed sessions, Amazon reviews, MovieLens, and the user's own files."""

from .amazon import Beauty, Sports, Toys, VideoGames
from .interactions import Interactions
from .movielens import MovieLens
from .sessions import Sessions

__all__ = ["Beauty", "Interactions", "MovieLens", "Sessions", "Sports", "Toys", "VideoGames"]
