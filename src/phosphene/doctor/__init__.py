"""The doctor: whether a network is fed as it was trained."""
