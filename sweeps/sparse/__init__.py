"""The table of sparse connectivity: what is run, what came out, and how it compares with what was published."""
