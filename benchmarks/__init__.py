"""How fast, and how much memory: each claim as a ratio of things measured in turn in one process.

`python -m polymamba.benchmarks` (or `make bench`) runs every suite and writes experiments/results/; arguments name suites:
`python -m polymamba.benchmarks scan mixer`. On a machine with a card: `make gpu` (gpu/).
"""
