"""`citlr reproduce morphomnist`: our generators by the protocol of the counterfactual-image benchmark."""
