"""Read models, one module a view."""
