"""Blind Knowledge Distillation (Kaiser et al. 2022, arXiv 2211.11355): a student blind to its label finds the wrong ones."""
