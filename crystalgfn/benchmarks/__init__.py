"""Benchmarks of throughput, exactness, mode coverage, placement and structure prediction."""
