"""Data keys and the encryption of personal fields."""
