"""Read models: for each a fold, its tables and its queries; the engine that runs them."""
