"""Sound: voices taken apart, noise taken away, sounds named."""
