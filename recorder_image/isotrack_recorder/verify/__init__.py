"""Prove a finished recording: decode every file and hold it against the manifest.

    place      where a recording lies (folder or bucket): its manifest, its files one by one
    child      start `decode` on one file in a process of its own, with limits; read what it says
    decode     that process: walks and decodes a file with libav, prints a Seen
    seen       what is found in a file, as it passes between the two
    judge      Seen against ManifestFile: numbers and problems (pure), with `whole` and `tracks`
    run        all files of a recording, some at once

The files come from strangers, and libav has had its accidents: it runs only in the child, which has no credentials, may
write nothing and is held to bounds of memory and time. Whatever becomes of it is one more line of the report.
"""
