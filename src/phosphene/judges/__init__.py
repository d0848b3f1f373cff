"""Judges: what a finished image is worth."""
