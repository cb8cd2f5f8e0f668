"""The ground: errors of one line, types of flags, progress, files that are whole or absent, what of the machine may be used.

Imports nothing of this project.
"""
