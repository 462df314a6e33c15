"""What a run of the benchmark found, as values and as text (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One receiver under one load."""

    load: str
    receiver: str
    participants: int
    cpu_seconds_per_participant_minute: float
    microseconds_per_packet: float
    core_percent: float
    rss_mb: int
    packets_per_second: int
    lost: int
    recovered: int
    """Packets that came by retransmission."""
    recorded_percent: float
    """Of the media that was sent: a receiver that falls behind records less."""
    stall_ms: float | None
    """Event loop, 99.9th percentile of its rounds; None where the receiver has none that we could look into."""
    stall_cpu_ms: float | None
    """Of that, our own work; the rest went to other processes."""
    load_latest_ms: float


def table(figures: Sequence[Figure]) -> str:
    """Figures with their ratio to the floor of the same load that sleeps between reads as we do, and to ours."""
    lines = [
        f"{'load':10}{'receiver':16}{'people':>7}{'CPU-s/person-min':>18}{'us/packet':>11}{'core %':>8}{'RSS MB':>8}"
        f"{'packets/s':>11}{'lost':>7}{'done %':>8}{'stall ms':>10}{'x floor':>9}{'x ours':>8}"
    ]
    for f in figures:
        floor, ours = (_of(figures, f, receiver) for receiver in ("floor", "isotrack"))
        stall = "" if f.stall_ms is None else f"{f.stall_ms:.1f}"
        lines.append(
            f"{f.load:10}{f.receiver:16}{f.participants:7}{f.cpu_seconds_per_participant_minute:18.4f}"
            f"{f.microseconds_per_packet:11.2f}{f.core_percent:8.2f}{f.rss_mb:8}{f.packets_per_second:11}{f.lost:7}"
            f"{f.recorded_percent:8.1f}{stall:>10}{_ratio(f, floor):>9}{_ratio(f, ours):>8}"
        )
    return "\n".join(lines)


def _of(figures: Sequence[Figure], beside: Figure, receiver: str) -> Figure | None:
    same = (f for f in figures if (f.load, f.participants) == (beside.load, beside.participants))
    return next((f for f in same if f.receiver == receiver), None)


def _ratio(figure: Figure, base: Figure | None) -> str:
    if base is None or not base.cpu_seconds_per_participant_minute:
        return ""
    return f"{figure.cpu_seconds_per_participant_minute / base.cpu_seconds_per_participant_minute:.2f}"


def fixed_cost(figures: Sequence[Figure], receiver: str, load: str = "vp8") -> tuple[float, float] | None:
    """Fit CPU = fixed + each * participants to calls of up to ten people; returns both in CPU seconds per minute.

    Larger calls are left out: what one participant costs sinks with their number, and the line would be theirs.
    None where there are not two sizes.
    """
    points = [
        (f.participants, f.cpu_seconds_per_participant_minute * f.participants)
        for f in figures
        if (f.receiver, f.load) == (receiver, load) and f.participants <= 10
    ]
    if len({people for people, _ in points}) < 2:
        return None
    mean_people = sum(people for people, _ in points) / len(points)
    mean_cpu = sum(cpu for _, cpu in points) / len(points)
    each = sum((people - mean_people) * (cpu - mean_cpu) for people, cpu in points) / sum(
        (people - mean_people) ** 2 for people, _ in points
    )
    return mean_cpu - each * mean_people, each
