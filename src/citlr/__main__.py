"""Run the command line as `python -m citlr`."""

from citlr.cli import main

main()
