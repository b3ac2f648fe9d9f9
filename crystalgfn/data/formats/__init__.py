"""One file a format: each yields the records of a file, one after the other."""
