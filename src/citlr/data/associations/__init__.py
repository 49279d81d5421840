"""What goes with the attribute in the data."""
