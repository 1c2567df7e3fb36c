"""The edges, on FastStream: intake of facts, decisions and readings, the runner of projections."""
