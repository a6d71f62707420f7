"""Tables of events: who took which item, and when. Computed sessions, and the user's own files."""

from .interactions import Interactions
from .sessions import Sessions

__all__ = ["Interactions", "Sessions"]
