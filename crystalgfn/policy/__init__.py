"""The policy network and its distributions."""
