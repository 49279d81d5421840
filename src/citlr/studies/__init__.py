"""Calibration and the tables of the publication, and ours."""
