"""Gradient estimators: how an attack differentiates spikes. The forward pass is the same under all of them."""
