"""The guard's rules, one module a rule."""
