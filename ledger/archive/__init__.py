"""The archive: sealed events as Parquet files."""
