"""Photographs, and what they are like."""
