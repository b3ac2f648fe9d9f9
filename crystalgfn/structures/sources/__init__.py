"""Sources of candidate structures: templates and random Wyckoff placement."""
