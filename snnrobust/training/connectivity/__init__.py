"""Which connections a network has in the course of its training."""
