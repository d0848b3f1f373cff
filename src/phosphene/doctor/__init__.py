"""The doctor: whether a network's preprocessing is that of its training."""
