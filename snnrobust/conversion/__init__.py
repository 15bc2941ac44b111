"""What a network begins with: weights of another one, pruned or converted."""
