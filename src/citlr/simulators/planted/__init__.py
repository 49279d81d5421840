"""Semi-real worlds: real images with a planted attribute, whose counterfactuals are exact."""
