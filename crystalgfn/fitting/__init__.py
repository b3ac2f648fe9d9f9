"""How the shipped property models and labels are fitted."""
