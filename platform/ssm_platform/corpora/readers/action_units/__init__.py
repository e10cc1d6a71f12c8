"""Corpora that label action units, frame by frame.

One module an owner's layout; none knows another's but where it says so.
"""
