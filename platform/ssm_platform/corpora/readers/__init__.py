"""Readers: one module a corpus or a prepared list, found by its `CORPUS`, in a folder by what is labelled.

Each knows one owner's layout and codes, and nothing of the others. To add one, add a file to the folder it belongs to.
"""
