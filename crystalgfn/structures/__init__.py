"""From space group, composition and lattice to atoms."""
