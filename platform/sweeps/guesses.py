"""What ``--plan`` has guessed of a sweep, kept in the cache until that sweep has run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from backstop.platform.disk import cache_name, write_atomically
from backstop.platform.specs.spec import Spec


class Guess(NamedTuple):
    """What so many runs were guessed to take."""

    runs: int
    seconds: float
    beside: str = ""  # what else the machine did while it was measured; empty: next to nothing


def _file(name: str, specs: Iterable[Spec]) -> Path:
    """Where the guess of a plan for an experiment is kept. RuntimeError without a home folder."""
    ids = " ".join(sorted(spec.id for spec in specs))
    digest = hashlib.sha256(f"{name} {ids}".encode()).hexdigest()
    return Path(cache_name()).expanduser() / "plans" / f"{digest[:24]}.json"


def keep_guess(
    name: str,
    specs: Iterable[Spec],
    guess: Guess,
) -> None:
    """Keep a guess; where the cache cannot be written there is none."""
    with suppress(OSError, RuntimeError):
        write_atomically(_file(name, specs), json.dumps(guess._asdict()).encode())


def find_guess(name: str, specs: Iterable[Spec]) -> Guess | None:
    """The guess that was made last of a plan for an experiment."""
    try:
        kept = json.loads(_file(name, specs).read_text(encoding="utf-8"))
        return Guess(int(kept["runs"]), float(kept["seconds"]), str(kept.get("beside", "")))
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):
        return None


def outcome(
    guess: Guess | None,
    runs: int,
    seconds: float,
) -> str:
    """What so many runs took beside what they were guessed to; empty where nobody has guessed.

    >>> outcome(Guess(84, 40.0), 84, 44.2)
    '84 runs took 44 s; --plan guessed 40 s'
    >>> outcome(Guess(84, 40.0), 12, 9.0)
    ''
    >>> outcome(Guess(1, 40.0, "it had 62 % of a core"), 1, 22.0)
    '1 runs took 22 s; --plan guessed 40 s on a machine that did other work: it had 62 % of a core'
    """
    if guess is None or guess.runs != runs or not runs:
        return ""
    beside = f" on a machine that did other work: {guess.beside}" if guess.beside else ""
    took = f"{runs} runs took {duration(seconds)}"
    return f"{took}; --plan guessed {duration(guess.seconds)}{beside}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours for people.

    >>> duration(44.2), duration(600.0), duration(9000.0), duration(0.31)
    ('44 s', '10 min', '2.5 h', '0.31 s')
    """
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
