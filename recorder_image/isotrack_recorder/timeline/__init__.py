"""Where frames lie in time: from RTP ticks and arrivals to nanoseconds on the recorder's axis.

    frames of one log → `index.Indexer` → one Bucket per second ─┐
    sender reports of the same log ──────────────────────────────┼→ `session.advance` → knots of five more seconds per log
    the other logs of the same participant session ──────────────┘

All of it is pure, integer where it decides bytes, and causal: a frame's place depends on what arrived until at most
LOOK_AHEAD_SECONDS after its group of seconds, so muxing behind the call gives what muxing afterwards gives.
"""
