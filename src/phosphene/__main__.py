"""`python -m phosphene`."""

from phosphene.cli.program import command

command()
