"""From crystallographic parameters to atoms: candidates, ranking, refinement, structure files."""
