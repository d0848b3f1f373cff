"""Dictionaries: sparse autoencoders of a layer's activations, read from the files of those that train them."""
