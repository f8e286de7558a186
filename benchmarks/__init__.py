"""Benchmarks: asv classes (time_, peakmem_, track_) and scripts that print the tables of docs/lab."""
