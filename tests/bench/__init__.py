"""Benchmarks of the recorder: `python -m bench` from `tests/`, or `make bench`."""
