"""The command line: verbs only; results on standard output, progress on standard error, heavy imports inside a verb."""
