"""Where the time series come from."""

from __future__ import annotations

from ..sources import Source

CHAOTIC = Source(
    title="Mackey-Glass and Lorenz, integrated here",
    homepage="computed here",
    citation="M. Mackey, L. Glass, Science 197, 1977; E. Lorenz, Journal of the Atmospheric Sciences 20, 1963",
    licence="none needed: computed",
    protocol="in time: 70% training, 10% validation, 20% test",
)

CSV_FILE = Source(
    title="A table of your own",
    homepage="your own",
    citation="your own",
    licence="the user's own",
    protocol="in time: the last shares of each series are for validation and for testing",
)
