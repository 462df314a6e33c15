"""Totals of a track over several media connections."""

from __future__ import annotations

from dataclasses import replace

from isotrack_recorder.media import TrackCounters


def add_counters(earlier: TrackCounters, later: TrackCounters) -> TrackCounters:
    """Sum two totals of one track. Sizes and the last packet are the later ones, where there are any."""
    return replace(
        earlier,
        packets=earlier.packets + later.packets,
        lost=earlier.lost + later.lost,
        recovered=earlier.recovered + later.recovered,
        late=earlier.late + later.late,
        duplicates=earlier.duplicates + later.duplicates,
        frames=earlier.frames + later.frames,
        key_frames=earlier.key_frames + later.key_frames,
        bytes=earlier.bytes + later.bytes,
        filler=earlier.filler + later.filler,
        damaged=earlier.damaged + later.damaged,
        plis=earlier.plis + later.plis,
        nacks=earlier.nacks + later.nacks,
        size_changes=earlier.size_changes + later.size_changes,
        last_packet_ns=max(earlier.last_packet_ns, later.last_packet_ns),
        width=later.width or earlier.width,
        height=later.height or earlier.height,
    )
