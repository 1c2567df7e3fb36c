"""The events of the ledger."""
