"""The command line: one module a verb, with its arguments and what it does."""
