"""Weights that the code of papers saved, as runs of this package."""
