"""Colours of what is written in pictures."""

INK, FAINT = "#222222", "#7a7a7a"
RIGHT, WRONG = "#1b7f4b", "#b3261e"
