"""A module for each kind of file that dictionaries are kept in."""
