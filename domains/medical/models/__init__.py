"""Segmentation networks, a file a paper; maps are (batch, channels, *sizes), with two or three sizes."""
