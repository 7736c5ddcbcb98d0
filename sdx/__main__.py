"""`python -m sdx`."""

from sdx.main import main

main()
