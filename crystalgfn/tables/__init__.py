"""Constant tables of elements, space groups and realisable counts, built once and shipped as files."""
