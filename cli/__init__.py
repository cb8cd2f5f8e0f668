"""Tools that every other package uses: one-line errors, flag types, progress bars, whole files, usable cores and memory.

It imports no other package of this project.
"""
