"""A trained network in files that other programs read."""
