"""The spool: what was captured, as it came, until it lies in the bucket.

    <spool>/i0001/                     one incarnation = one process of the recorder; a restart makes the next
        journal.ndjson …               facts about the call and its tracks, one JSON object per line with a CRC (`journal`), in segments
        journal.past                   what is left of segments of the journal that were given back (`past`)
        t0001.000001.log …             frames of one track, append-only segments (`records`)

Written by the recorder alone (`writer`), read by the agent and by `isotrack finalise` (`reader`), while it grows; the agent takes
away segments that are no longer needed. Any prefix of any file is readable: a torn tail is where the truth ends. Nothing is decided here: no container, no rounding,
no timeline.
"""
