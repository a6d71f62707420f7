"""Medical images: segmentation of volumes and slices."""
