"""`python -m serving` is `medserve`."""

from serving.cli import main

main()
