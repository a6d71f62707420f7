"""What the CPU kernels of the operators are made of; README.md shows a whole one."""
