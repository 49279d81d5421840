"""MNIST digits whose thickness and intensity are set by known equations, so that counterfactuals are exact."""
