"""The contract of isotrack: pydantic models of everything that crosses a process or is kept by a user.

Recording, RecordingReport and RecordingClass are Kubernetes objects (`python -m isotrack_api.generate` writes their CRDs);
Intent is what a recorder pod is told; Manifest is `recording.json`. Nothing here imports another package of ours or does I/O.
"""
