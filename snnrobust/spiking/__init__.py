"""Spiking building blocks: neurons, surrogates, encoders and the classifier that attacks see."""
