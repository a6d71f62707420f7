"""What runs a model: build, train, evaluate, report, benchmark, command line."""
