"""Prepared lists and own tables: what somebody made of a corpus before.

One module an owner's layout; none knows another's but where it says so.
"""
