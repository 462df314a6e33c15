"""Sources: the SFUs that a call can be captured from.

`base` is all that capture knows of any of them; each SFU has a package of its own that speaks its signalling.
"""
