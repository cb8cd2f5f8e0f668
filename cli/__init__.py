"""The lowest layer: errors of one line, types of flags, progress, files that are whole or absent, usable cores and memory.

It imports no other package of this project.
"""
