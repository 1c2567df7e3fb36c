"""The rules of the product: pure functions without I/O, clock or generated ids."""
