"""Attacks, one search each; `base.py` guarantees budget, range and the absence of side effects."""
