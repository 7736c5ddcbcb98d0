"""`python -m sdx`."""

from sdx.cli.main import main

main()
