"""Import of CSV and JSON Lines files by a mapping."""
