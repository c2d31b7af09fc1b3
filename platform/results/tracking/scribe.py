"""Who writes to a store: this process, or one of its own.

MLflow and PyTorch take more than a second of a core each to import, and an import keeps the
interpreter to itself. So a command that has imported neither lets another process import MLflow,
and write, while it imports PyTorch and trains.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from socket import socketpair
from subprocess import Popen
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from backstop.platform import collector, loose
from backstop.platform.contract import Record
from backstop.platform.params import BadInput
from backstop.platform.results.tracking.experiments import import_store
from backstop.platform.results.tracking.log import MODEL, Log, model_file
from backstop.platform.results.tracking.store import Store

if TYPE_CHECKING:
    from torch import Tensor

_Answer = TypeVar("_Answer")

# the program of the other process, which imports from where this one does, and from nowhere else
SERVING = f"""
import sys
descriptor, *sys.path = sys.argv[1:]
from {__name__} import serve
serve(int(descriptor))
"""
# an interruption is for the process that trains, whoever sends it to both
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class RunLog(Protocol):
    """What a :class:`Log` is asked for, wherever it is."""

    run_id: str | None
    error: str
    finding: str

    def log(self, record: Record) -> None:
        """Keep a round's figures for the next flush."""

    def flush(self, *, force: bool = True) -> bool:
        """Send what is kept; whether the store has it."""

    def finish(
        self,
        final: Mapping[str, float],
        tensors: Mapping[str, Tensor] | None = None,
    ) -> bool:
        """Send all there is of a run; whether the store has it."""

    def fail(self, message: str, trace: str = "") -> bool:
        """Say why the run has failed; whether the store has it."""


class Scribe(Protocol):
    """Who does what is to be done to a store."""

    def ask(self, function: Callable[..., _Answer], *arguments: Any) -> _Answer:
        """What a function of a module makes of plain data. Raises what it raises."""

    def open_log(self, make: partial[Log]) -> RunLog:
        """The log that is made so."""


class Here:
    """This process."""

    def ask(self, function: Callable[..., _Answer], *arguments: Any) -> _Answer:
        """Call the function."""
        return function(*arguments)

    def open_log(self, make: partial[Log]) -> RunLog:
        """Make the log."""
        return make()


class Apart:
    """Another process, which ends when this one does, however that ends."""

    def __init__(self, store: Store) -> None:
        """Start it; it begins to import what the store needs. Raises OSError where the system has
        no room for it.
        """
        ours, theirs = socketpair()
        isolation = ["-E"] if sys.flags.ignore_environment else []
        with ours, theirs:
            self.process = Popen(
                [sys.executable, *isolation, "-c", SERVING, str(theirs.fileno()), *sys.path],
                pass_fds=[theirs.fileno()],
                process_group=0,  # until it ignores what comes from the terminal
            )
            self.connection = Connection(ours.detach())
        self.connection.send((store, loose.sent()))
        self.asked = 0
        self.logs = 0

    def ask(self, function: Callable[..., _Answer], *arguments: Any) -> _Answer:
        """Let the other process call the function. Raises BadInput where that has ended."""
        self.asked += 1
        try:
            with self._in_one_piece():
                self.connection.send((self.asked, function, arguments))
            number, error, answer = self._receive()
            while number < self.asked:  # whoever asked for that was interrupted
                number, error, answer = self._receive()
        except (EOFError, OSError):
            raise BadInput("the process that writes to the store has ended") from None
        if error is not None:
            raise error
        return answer  # type: ignore[no-any-return]

    def _receive(self) -> tuple[int, Exception | None, Any]:
        """The next answer, and which it is."""
        self.connection.poll(None)  # may take long, and may be interrupted
        with self._in_one_piece():
            return self.connection.recv()  # type: ignore[no-any-return]

    @contextmanager
    def _in_one_piece(self) -> Iterator[None]:
        """Send or receive something whole: after an interruption in the middle of it, what comes
        next would be taken for the rest, so nothing comes next.
        """
        try:
            yield
        except BaseException:
            self.connection.close()
            raise

    def open_log(self, make: partial[Log]) -> RunLog:
        """A log that the other process makes when it first needs it."""
        self.logs += 1
        return LogApart(self, self.logs, make)

    def close(self) -> None:
        """End the other process: what somebody has waited for is done."""
        self.connection.close()
        self.process.kill()
        self.process.wait()


class LogApart:
    """A log in another process: what it has to send goes there when it is to be sent."""

    def __init__(
        self,
        scribe: Apart,
        number: int,
        make: partial[Log],
    ) -> None:
        """``number`` is its own among the logs of the other process."""
        self.scribe = scribe
        self.number = number
        self.make = make
        self.run_id: str | None = None
        self.error = ""
        self.finding = ""
        self._waiting: list[Record] = []

    def log(self, record: Record) -> None:
        """Keep a round's figures for the next flush."""
        self._waiting.append(record)

    def flush(self, *, force: bool = True) -> bool:
        """Let :meth:`Log.flush` send what is kept."""
        return self._do(partial(Log.flush, force=force))

    def finish(
        self,
        final: Mapping[str, float],
        tensors: Mapping[str, Tensor] | None = None,
    ) -> bool:
        """Let :meth:`Log.finish` send all there is. The final model goes there as a file: nobody
        there needs PyTorch.
        """
        files = {} if tensors is None else {MODEL: model_file(tensors)}
        return self._do(partial(Log.finish, final=final, files=files))

    def fail(self, message: str, trace: str = "") -> bool:
        """Let :meth:`Log.fail` say why the run has failed."""
        return self._do(partial(Log.fail, message=message, trace=trace))

    def _do(self, step: partial[bool]) -> bool:
        records, self._waiting = self._waiting, []
        try:
            told = self.scribe.ask(_step, self.number, self.make, records, step)
        except BadInput as error:  # nobody is left to try again
            self.error = str(error)
            return False
        self.run_id, self.error, self.finding = told.run_id, told.error, told.finding
        return told.stored


class _LogState(NamedTuple):
    """What a log says after a step."""

    stored: bool
    run_id: str | None
    error: str
    finding: str


_LOGS: dict[int, Log] = {}  # those of the process that writes


def _step(
    number: int,
    make: partial[Log],
    records: Sequence[Record],
    step: partial[bool],
) -> _LogState:
    """Let a log of this process take further records and a step."""
    log = _LOGS.get(number) or _LOGS.setdefault(number, make())
    for record in records:
        log.log(record)
    stored = step(log)
    return _LogState(stored, log.run_id, log.error, log.finding)


@contextmanager
def hired(store: Store) -> Iterator[Scribe]:
    """Who writes to a store while the block lasts: a process of its own, unless this one has MLflow
    already, or the system has no room for another.
    """
    scribe = None
    if "mlflow" not in sys.modules:
        with suppress(OSError):
            scribe = Apart(store)
    try:
        yield scribe or Here()
    finally:
        if scribe is not None:
            scribe.close()


def serve(descriptor: int) -> None:
    """Do what is asked for on a socket, one thing after the other, until whoever asks has ended."""
    for sign in IGNORED:
        signal.signal(sign, signal.SIG_IGN)
    collector.skip_at_exit()  # where whoever asks is killed, it is to be gone soon
    with Connection(descriptor) as connection, suppress(EOFError, ConnectionError):
        store, files = connection.recv()
        loose.receive(files)
        import_store(store)
        while True:
            number, function, arguments = connection.recv()
            connection.send((number, *_answer(function, arguments)))


def _answer(function: Callable[..., Any], arguments: Sequence[Any]) -> tuple[Any, Any]:
    """What a function raises, or what it comes to."""
    try:
        return None, function(*arguments)
    except Exception as error:  # noqa: BLE001 -- whoever asks has to handle it
        return error, None
