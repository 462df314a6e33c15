"""When what is done to a recording: a function of a seed (pure)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .pods import Command

SOON_SECONDS: Final = (0.02, 0.7)
"""While the process before is still starting or has just begun to work."""
LATER_SECONDS: Final = (1.2, 3.2)
"""It has worked for a while."""
SOON_SHARE: Final = 0.3


@dataclass(frozen=True, slots=True)
class Step:
    """One kill."""

    command: Command
    after: float
    """Seconds since the step before it, or since media of everybody is being recorded."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The course of one trial."""

    during: tuple[Step, ...]
    after_end: tuple[Step, ...] = ()
    """Counted from the end of the call; one whose process has done its work by then is left out."""
    rest: float = 0.0
    """Seconds of call after everybody is recorded again."""


def random_kills(seed: int, commands: Sequence[Command], count: int, count_after_end: int = 0) -> Plan:
    """Kills of these processes at random times.

    Args:
        commands: Each is killed at least once where `count` allows.
        count: Kills during the call.
        count_after_end: Further ones while files are being shipped.
    """
    chance = random.Random(seed)
    victims = [commands[number] if number < len(commands) else chance.choice(commands) for number in range(count)]
    chance.shuffle(victims)
    during = tuple(Step(victim, _pause(chance)) for victim in victims)
    after = tuple(Step(chance.choice(commands), chance.uniform(0.02, 0.9)) for _ in range(count_after_end))
    return Plan(during, after, rest=chance.uniform(0.0, 1.5))


def _pause(chance: random.Random) -> float:
    return chance.uniform(*(SOON_SECONDS if chance.random() < SOON_SHARE else LATER_SECONDS))
