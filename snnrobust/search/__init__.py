"""Search for settings, with several objectives on validation data."""
