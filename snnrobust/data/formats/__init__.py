"""Readers of event recordings, one file per family of formats: each turns a path into events (`recordings.py`).

A reader raises `ValueError` for a file that is not what it should be; it leaves coordinates and times to be checked.
"""
