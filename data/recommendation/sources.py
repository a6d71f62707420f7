"""Where the tables of events come from."""

from __future__ import annotations

from ..sources import Source

SESSIONS = Source(
    title="Sessions whose first event rules what follows what",
    homepage="",
    citation="",
    licence="none needed: computed",
    protocol="leave-one-out: each user's last event is the test, the one before it the validation",
)

INTERACTIONS = Source(
    title="The user's own table of events",
    homepage="",
    citation="",
    licence="the user's own",
    protocol="as data.split says: each user's last events, the last of all events, or shares of each user's",
)
