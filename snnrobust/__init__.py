"""Train, attack and compare robust spiking neural networks."""

__version__ = "0.1.0"
