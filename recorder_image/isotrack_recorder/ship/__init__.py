"""Ship: what the spool holds, made into files and brought to object storage, verified.

    spool ─▶ deliver ─▶ session (finalise: mux) ─▶ bodies ─▶ upload ─▶ s3 ─▶ bucket
               │            └─ sessions              └─ ledger      ▲
               └─ attempt manifest, recording.json ─────────────────┘

`deliver` decides what is due and in which order; `session` goes on with one participant session, from what `sessions` saved of it;
`bodies` holds muxed bytes on the disk until `upload` has sent them part by part, which the `ledger` notes; `reclaim` gives back the
spool behind them; `commit`
writes the manifests, `layout` names all keys; `s3` speaks to the storage (port: `store`) through `s3_requests`
(only `s3_client` imports boto3), within the bounds of `retry` and in the threads of `lanes`; `preflight` finds out at the first second whether the storage will take anything.
`kube` is apart: the agent's two conversations with the API server. The agent (`pod.agent`) and the command line use the
same `deliver`.
"""
