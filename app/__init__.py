"""Composition root: the command line, `up`, the simulator."""
