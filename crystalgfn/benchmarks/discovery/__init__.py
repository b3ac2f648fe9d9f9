"""Discovery of known stable phases that were held back, by several methods, at the same budget of relaxations."""
