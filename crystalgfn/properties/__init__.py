"""What a crystal is predicted to be: exact properties, proxy ensembles, hulls."""
