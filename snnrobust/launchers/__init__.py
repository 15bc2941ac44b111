"""Where the runs of a sweep take place."""
