"""Import of CSV files by a column mapping."""
