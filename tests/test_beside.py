"""A context that is entered and left on a thread of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import NoReturn

import pytest

from backstop.platform.params import BadInput
from backstop.platform.sweeps.beside import Beside

PATIENCE = 30.0  # seconds after which a test that hangs fails


class Slow:
    """A context that is entered, and left, when it is told so."""

    def __init__(self) -> None:
        self.may_enter, self.may_leave = Event(), Event()
        self.seen: list[str] = []

    @contextmanager
    def opened(self) -> Iterator[None]:
        self.seen.append("entering")
        assert self.may_enter.wait(PATIENCE)
        self.seen.append("entered")
        yield
        assert self.may_leave.wait(PATIENCE)
        self.seen.append("left")


def test_the_caller_goes_on_while_it_is_entered_and_while_it_is_left() -> None:
    slow = Slow()
    with Beside(slow.opened) as beside:
        beside.begin()
        slow.may_enter.set()  # nobody else would: begin has returned before it is entered
        beside.wait()
        assert slow.seen == ["entering", "entered"]
        beside.leave()
        slow.seen.append("the caller goes on")
        slow.may_leave.set()
    assert slow.seen == ["entering", "entered", "the caller goes on", "left"]


def test_what_was_begun_is_left_though_nobody_waited_for_it() -> None:
    slow = Slow()
    slow.may_leave.set()
    with pytest.raises(KeyError), Beside(slow.opened) as beside:
        beside.begin()
        slow.may_enter.set()
        raise KeyError
    assert slow.seen == ["entering", "entered", "left"]


def test_what_was_not_begun_is_never_made() -> None:
    with Beside(lambda: pytest.fail("nobody asked for it")) as beside:
        beside.leave()


def test_who_waits_is_told_why_it_cannot_be_entered() -> None:
    def away() -> NoReturn:
        raise BadInput("nobody answers")

    with pytest.raises(BadInput, match="nobody answers"), Beside(away) as beside:
        beside.wait()
