"""Ways to adapt a trained model to new text by training some of its numbers, or a few new ones."""
