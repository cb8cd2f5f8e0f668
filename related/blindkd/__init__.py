"""Blind Knowledge Distillation (Kaiser et al. 2022, arXiv 2211.11355): a student that never sees its own label finds the wrong ones."""
