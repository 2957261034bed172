"""Benchmarks of what is timed: ``python -m benchmarks`` (or ``make bench``)."""
