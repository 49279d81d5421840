"""What all studies share: sweeps and the engines that they run on, worlds, audits, tables and pages."""
