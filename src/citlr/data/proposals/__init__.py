"""What the columns and images of a table seem to be, and the configuration that is proposed from it."""
