"""Pages, figures and cards of results; results do not know them."""
