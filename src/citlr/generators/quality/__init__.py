"""How faithful counterfactual images are."""
