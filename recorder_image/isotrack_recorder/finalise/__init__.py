"""From a spool to files: which files a participant session becomes, their bytes, and the manifest.

    spool = Spool(path); spool.refresh()                                   spool.reader: facts of the journal, frames of the logs
    stream = SessionStream(spool, intent, SessionState(peer_id), sink)     session: one participant session, into any FileSink (model)
    stream.advance(whole=False)                                            what is due by now; again after each `refresh`
    stream.advance(whole=True)                                             all that is left, once the session or capture is over
    entry = manifest_file(part.plan, part.result, digest)                  manifest: entry of a finished part that is stored and verified
    manifest = build_manifest(spool, intent, [entry, …])                   manifest: of this attempt
    manifest = merge_manifests([attempt 1, attempt 2, …])                  manifest: of the recording

    logs → timeline → succession (which lane) → outputs (which part) → files, parts → lanes → muxer
                                                                           what a stream consists of; each has plain data for its state

All of it is deterministic: the same spool and intent give the same names and the same bytes, in one go or in any steps, by one process
or by several that hand on `stream.save()`.

Effects live in `local` only (`finish_local`: everything into a folder); object storage is `ship`'s.
"""
