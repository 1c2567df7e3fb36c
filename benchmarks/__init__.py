"""Benchmarks: each figure beside those of its rivals, in one run, at the same durability."""
