"""Facts and algebra of crystals, without learning: elements, space groups, orbits, lattices, cells."""
