"""Where networks come from: a module for each source."""
