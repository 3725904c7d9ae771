"""Benchmarks: side by side in one run, reported as medians and ratios; nothing here asserts a time."""
