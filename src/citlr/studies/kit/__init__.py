"""What all studies share: sweeps, worlds, audits, tables and pages."""
