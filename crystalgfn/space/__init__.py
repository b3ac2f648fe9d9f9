"""What may be sampled: hard constraints on space group, composition and lattice, and their look-up tables."""
