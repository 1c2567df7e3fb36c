"""Read models: each has a fold, tables and queries; the engine runs them."""
