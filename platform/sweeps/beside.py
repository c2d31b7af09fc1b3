"""A context that is entered, and left, beside other work: Ray takes seconds to start and to end."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self


class Beside:
    """A context on a thread of its own. The end of the block leaves it, wherever it is by then, and
    waits for that.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[object]]) -> None:
        """``make`` makes the context once it is needed."""
        self.make = make
        self.thread = ThreadPoolExecutor(1, "beside")
        self.entering: Future[AbstractContextManager[object]] | None = None
        self.leaving: Future[None] | None = None

    def begin(self) -> None:
        """Begin to enter the context, where that has not begun."""
        if self.entering is None:
            self.entering = self.thread.submit(self._enter)

    def wait(self) -> None:
        """Wait until it is entered. Raises what entering raises."""
        self.begin()
        if self.entering is not None:
            self.entering.result()

    def leave(self) -> None:
        """Begin to leave it, where it was entered and that has not begun."""
        if self.entering is not None and self.leaving is None:
            self.leaving = self.thread.submit(self._leave, self.entering)

    def close(self) -> None:
        """Leave it and wait for that."""
        self.leave()
        if self.leaving is not None:
            self.leaving.result()
        self.thread.shutdown()

    def __enter__(self) -> Self:
        """Nothing begins yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the context; what entering it has raised was told to who waited."""
        self.close()

    def _enter(self) -> AbstractContextManager[object]:
        context = self.make()
        context.__enter__()
        return context

    @staticmethod
    def _leave(entering: Future[AbstractContextManager[object]]) -> None:
        if entering.exception() is None:
            entering.result().__exit__(None, None, None)
