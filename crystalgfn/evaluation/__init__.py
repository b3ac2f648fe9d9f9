"""Evaluation of anyone's crystals: description, comparison with a reference, report."""
