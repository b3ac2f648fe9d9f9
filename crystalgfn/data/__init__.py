"""What comes from outside: readers of crystal files, tables and databases, and Parquet shards."""
