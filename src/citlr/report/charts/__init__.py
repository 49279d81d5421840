"""Charts of the page, and the forest plot for notebooks."""
