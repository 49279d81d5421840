"""What the training split shows of an attribute: means, covariances, where, and how surely."""
