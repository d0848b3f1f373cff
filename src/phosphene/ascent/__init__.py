"""Gradient ascent on images: what is asked for, the canvas, the objective and the one loop."""
