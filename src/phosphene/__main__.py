"""`python -m phosphene`."""

from phosphene.cli import command

command()
