"""Budgets and their postings."""
