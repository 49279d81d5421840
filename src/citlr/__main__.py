"""Run the command line as `python -m citlr`."""

from citlr.cli.main import main

main()
