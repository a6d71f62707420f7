"""Recommendation: the next items of each user, from a table of events."""
