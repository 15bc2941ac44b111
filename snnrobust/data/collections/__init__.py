"""Where the recordings of a dataset lie, of which class each is, and which part it belongs to."""
