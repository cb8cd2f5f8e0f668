"""Blind Knowledge Distillation (Kaiser et al. 2022, arXiv 2211.11355).

A student that never sees the given label's logit helps to find wrong labels.
"""
