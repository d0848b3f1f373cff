"""`python -m phosphene.cli`."""

from phosphene.cli.program import command

command()
