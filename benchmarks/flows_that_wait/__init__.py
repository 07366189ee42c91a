"""Flows that the benchmark of signals resumes; a package, so that `make bench` does not take them for a benchmark."""
