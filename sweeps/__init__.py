"""Comparisons: what is run (yaml), how it is run, and what came out, side by side."""
