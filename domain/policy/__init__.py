"""The versioned rules of a company."""
