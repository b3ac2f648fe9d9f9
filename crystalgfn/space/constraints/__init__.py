"""The constraints of a space, one file a rule or a small family of them."""
