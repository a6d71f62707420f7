"""Recommenders, a file per paper; all are called as sequential.SequentialModel says."""
