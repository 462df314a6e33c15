"""Builders: one child object each, from plain values to plain dictionaries. Equal input gives equal bytes.

No clock, no random name and no look-up lives here; `names` says what everything is called.
"""
