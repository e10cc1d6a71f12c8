"""Readers: one module a corpus or a prepared list, found by its `CORPUS`.

Each knows one owner's layout and codes, and nothing of the others. To add one, add a file here.
"""
