"""Charts of the page, and figures for notebooks."""
