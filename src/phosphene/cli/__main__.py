"""`python -m phosphene.cli`."""

from phosphene.cli import command

command()
