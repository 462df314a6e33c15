"""The recorder: joins a call, captures every participant's tracks untouched, makes and ships the files.

Data walks one way: sources → webrtc → rtp → codecs → spool → timeline → matroska → finalise → ship. `pod` holds the two
entry points of a recorder pod, `cli` the command `isotrack`.
"""

__version__ = "0.1.0"
