"""Terms added to the training loss, one file each."""
