"""Functions of tensors that compute without the interpreter's lock.

A call of torch gives the lock up and takes it back. Where kernels are short and another thread
wants the lock as often, taking it back takes as long as a kernel. TorchScript runs all calls of a
function with the lock given up once.

What is left to the interpreter between such functions is many short calls again. Threads take turns
with it: one has its turn while the others are in a function that needs no lock, and so nobody waits
for every single call.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

TURN = threading.Lock()  # of this process's threads, with what needs the interpreter


@contextmanager
def given_up(turn: threading.Lock) -> Iterator[None]:
    """A turn that this thread has, left to the others while the block lasts."""
    turn.release()
    try:
        yield
    finally:
        turn.acquire()


def lock_free(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function, run by TorchScript: the same kernels in the same order, so the same bits.
    Nothing is fused or specialized, and the first call costs about as much as any other. Nor is
    anything taken down for a gradient: what comes back cannot be differentiated.

    It and what it calls are written in the part of Python that TorchScript knows. Where a PyTorch
    has no TorchScript any more, it runs as it stands. ``__wrapped__`` is the function itself.
    """
    script = getattr(torch.jit, "script", None)
    if script is None:
        return function
    with warnings.catch_warnings():
        # deprecated for compilers that fuse kernels: other bits, and seconds at the start
        warnings.simplefilter("ignore", FutureWarning)
        compiled = script(function)

    @functools.wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        as_written = torch.jit.optimized_execution(False)  # type: ignore[attr-defined]
        with torch.inference_mode(), as_written:
            result: Result = compiled(*args, **kwargs)
        return result

    return run
