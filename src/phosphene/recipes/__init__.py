"""Recipes: all that determines an image, but for the network, the unit and the seed."""
