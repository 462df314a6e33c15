"""The proof that nothing is lost: real recordings are broken in the middle, and what lies in the bucket afterwards is judged.

    publisher ─▶ LiveKit ─▶ pods (`capture`, `agent`: real processes, killed and restarted) ─▶ S3 server
        │ ledger: which serial was sent when                                                      │
        └───────────────────────────▶ gather ─▶ Evidence ─▶ validate, losses ─▶ results ─▶ docs/reliability.md

Every frame and every packet of sound carries a serial (`serials`), so a recording can be compared with what was sent down to
the packet. `kinds` is the table of what is done to a recording and what it may cost; `trial` does it once; `campaign` does it
hundreds of times. A trial in which its fault was not seen to happen, or in which hardly anything was sent, is invalid, and an
invalid trial has not passed.

    user, kubelet and agent (played) ─▶ API server ◀─ operator (killed at each of its writes) ─▶ Aftermath ─▶ judge ─▶ results

The operator handles no media, so its trials (`operator_stories`, `operator_trial`, `operator_place`) need an API server only. `cluster`
runs the tests of `tests/cluster` that break a whole one. `validate`, `losses`, `plans`, `sites`, `operator_evidence`,
`result` and `report` are pure.
"""
