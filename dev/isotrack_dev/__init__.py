"""The real parts that isotrack is developed and tested against: SFU, object store, Kubernetes.

Nothing of this is in the published wheel. `tools` builds pinned binaries once into a cache folder, `servers` starts a
LiveKit or an S3 server on loopback for one test run, `stack` starts a whole cluster in namespaces of its own, `images`
builds and loads the product's container images, and `cli` (`python -m isotrack_dev`) drives all of it. Pure modules
(`addresses`, `config`, `components`) say what is started; `process`, `namespaces` and `stack` do it.
"""
