"""How a training step is made of a batch, one file each."""
