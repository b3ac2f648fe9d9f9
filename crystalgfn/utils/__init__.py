"""What every room may use: whole files, processes, run folders, provenance, statistics, random seeds."""
