"""Neighbours: other papers' methods, each in a folder of its own with its README, its scripts under their published names, and
what is theirs alone. They may import all rooms; no room imports them."""
