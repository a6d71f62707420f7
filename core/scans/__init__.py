"""Scan modes: functions from a grid to the order in which its tokens are visited."""
