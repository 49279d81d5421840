"""The publication's own game: a disentangler against a critic, its strength, and inversion."""
