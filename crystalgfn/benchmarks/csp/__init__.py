"""The crystal structure prediction benchmark: tasks, methods, scores, report."""
