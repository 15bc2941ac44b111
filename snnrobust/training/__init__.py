"""The training loop, its defences and its checkpoint."""
