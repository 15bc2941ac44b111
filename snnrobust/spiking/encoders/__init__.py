"""Codes that turn a pixel's value into times, bit planes or frequencies."""
