"""Tables, figures and the page, made from run records alone (no torch, no Hydra)."""
