"""Figures of the answer cache: `python -m bench.cache`, or `make bench-cache`."""
