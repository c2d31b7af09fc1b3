"""What a trial of a sweep makes of an error: a broken stage is its end, all else may go better."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from backstop.platform.contract import BrokenStage, Spec
from backstop.platform.specs.spec import spec_to_json
from backstop.platform.sweeps.queues import Fixed, Queue
from backstop.platform.sweeps.trials import Trial, Watching, prepared_processes

SPEC = Spec(rounds=1)


def trial_that_meets(error: Exception) -> Trial:
    """A trial, without Tune around it, whose experiment raises as it begins."""

    def begin(*_: Any) -> NoReturn:
        raise error

    trial = Trial.__new__(Trial)
    task = SimpleNamespace(session=begin)
    vars(trial).update(next_spec=spec_to_json(SPEC), clients=None, idle_since=0.0, task=task)
    return trial


def test_what_a_stage_raises_ends_its_trial_without_another_try() -> None:
    result = trial_that_meets(BrokenStage("defense krum", "ValueError: no luck")).step()
    assert result["done"]
    assert result["failure"] == "defense krum: ValueError: no luck"


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("the worker is gone"),
        BrokenStage("defense krum", "OutOfMemoryError: CUDA out of memory"),
        BrokenStage("defense krum", "MemoryError"),
        BrokenStage("attack iba", "OSError: [Errno 28] No space left on device"),
        BrokenStage("attack iba", "RuntimeError: DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=str,
)
def test_what_may_go_better_is_left_to_tune_which_tries_again(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        trial_that_meets(error).step()
    assert caught.value is error


def test_a_broken_stage_is_told_as_a_failure_of_its_run() -> None:
    told: list[Any] = []
    observer: Any = SimpleNamespace(
        result=lambda *given: told.append(given), ended=lambda *given: told.append(given)
    )
    queue = Queue(Fixed([SPEC]), {})
    queue.fill()
    watching = Watching(queue, observer)
    result = {"rounds": 0, "last": {}, "done": True, "failure": "defense krum: no luck"}
    trial = SimpleNamespace(config={"id": SPEC.id}, last_result=result)
    watching.on_trial_result(1, [], trial, result)
    watching.on_trial_complete(1, [], trial)
    assert queue.failures == {SPEC.id: "defense krum: no luck"}
    assert told == [(SPEC, None, False)]


def test_a_local_trial_asks_for_no_environment_but_the_one_that_processes_have() -> None:
    from ray.tune.execution.class_cache import _ActorClassCache

    def environment() -> Any:
        cache: Any = _ActorClassCache
        asked = cache().get(Trial)
        return asked._default_options["runtime_env"].get("env_vars")

    assert environment()
    with prepared_processes():
        assert not environment()
    assert environment()
