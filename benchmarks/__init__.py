"""Speed and memory, each as a ratio of things measured in one process."""
