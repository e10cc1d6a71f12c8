"""Corpora that label expressions, a clip or a picture at a time.

One module an owner's layout; none knows another's but where it says so.
"""
