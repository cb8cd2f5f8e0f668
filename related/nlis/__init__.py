"""Noisy class labels in instance segmentation (Yang et al., ECCV 2020).

A wrong class still says truly "an object": foreground against background keeps cross-entropy, the class gets a robust loss.
"""
