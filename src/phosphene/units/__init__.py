"""Units: what is maximized."""
