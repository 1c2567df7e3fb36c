"""Encryption of personal fields and the erasure of customers."""
