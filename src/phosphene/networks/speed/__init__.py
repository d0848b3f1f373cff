"""The same network, run faster."""
