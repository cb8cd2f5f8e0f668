"""Ratios against peers and limits, each from one script."""
