"""Further neurons, one idea each."""
