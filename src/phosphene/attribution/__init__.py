"""Where in a photograph a unit is, and what carried it."""
