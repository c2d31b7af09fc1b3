"""What the code of a plug-in raises, in one line that names the stage, the round and the client.

defense krum: round 3: ValueError: f must be below n/2 (krum.py:31)
attack badnets: round 1: client 7: IndexError: index 8 is out of bounds (badnets.py:40)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from traceback import walk_tb
from types import TracebackType
from typing import Any, TypeVar

from backstop.platform.contract import Attack, BrokenStage, Carry, Defense, Local
from backstop.platform.params import BadInput

Stage = TypeVar("Stage", Attack[Any], Defense[Any], Local[Any], Carry[Any])

PLATFORM = Path(__file__).resolve().parents[1]


def name_errors(stage: str, hooks: Stage) -> Stage:
    """The same stage; what its functions raise is a :class:`BrokenStage` that names it."""
    named: Any = {
        name: _naming(stage, hook) for name, hook in hooks._asdict().items() if callable(hook)
    }
    return hooks._replace(**named)


@contextmanager
def located(round_index: int, client: int | None = None) -> Iterator[None]:
    """Say in which round, counted from 0, and at which client a stage broke, unless it is known."""
    try:
        yield
    except BrokenStage as error:
        error.locate(round_index, client)
        raise


def failure_line(error: Exception, round_index: int) -> str:
    """What ended an experiment in a round, in one line; a broken stage knows its round.

    >>> failure_line(OSError("disk full"), 2)
    'round 3: OSError: disk full'
    """
    if isinstance(error, BrokenStage):
        return str(error)
    return f"round {round_index + 1}: {type(error).__name__}: {error}"


def _naming(stage: str, hook: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(hook)
    def call(*given: Any) -> Any:
        try:
            return hook(*given)
        except (BadInput, BrokenStage):  # lines of their own
            raise
        except (Exception, SystemExit) as error:  # a stage that calls exit() is no interruption
            raise BrokenStage(stage, _line(error)) from error

    return call


def _line(error: BaseException) -> str:
    """``ValueError: no luck (krum.py:31)``: the last line of the plug-in that was running."""
    text = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")
    where = _plugin_line(error.__traceback__)
    return f"{text} ({where})" if where else text


def _plugin_line(trace: TracebackType | None) -> str:
    """The platform calls a plug-in, so its file is the first one that is not the platform's."""
    lines = [(Path(frame.f_code.co_filename).resolve(), line) for frame, line in walk_tb(trace)]
    outside = [file for file, _ in lines if not file.is_relative_to(PLATFORM)]
    if not outside:
        return ""
    line = [line for file, line in lines if file == outside[0]][-1]
    return f"{outside[0].name}:{line}"
