"""How an image was made, as its own file says it."""
