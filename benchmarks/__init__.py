"""Benchmarks: each figure beside what it is compared with, in one run, at the same durability."""
