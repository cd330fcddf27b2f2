"""`python -m backy`."""

from backy.cli.main import run

run()
