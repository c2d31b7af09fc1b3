"""What a trial of a sweep makes of an error: a broken stage is its end, all else may go better."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from ray.exceptions import RayActorError

from backstop.platform.contract import BrokenStage, Spec
from backstop.platform.specs.spec import spec_to_json
from backstop.platform.sweeps.queues import Fixed, Queue
from backstop.platform.sweeps.trials import (
    Retrying,
    Told,
    Trial,
    Watching,
    prepared_processes,
)
from backstop.platform.workers.limits import Guard, Limits, log_path

SPEC = Spec(rounds=1)


def trial_that_meets(error: Exception, logs: Path) -> Trial:
    """A trial, without Tune around it, whose experiment raises as it begins."""

    def begin(*_: Any) -> NoReturn:
        raise error

    trial = Trial.__new__(Trial)
    destination = SimpleNamespace(logs=logs)
    vars(trial).update(
        task=SimpleNamespace(session=begin, destination=destination),
        clients=None,
        guard=Guard(Limits()),
        idle_since=0.0,
    )
    trial.reset_config({"id": SPEC.id, "spec": spec_to_json(SPEC)})
    return trial


def test_what_a_stage_raises_ends_its_trial_without_another_try(tmp_path: Path) -> None:
    result = trial_that_meets(BrokenStage("defense krum", "ValueError: no luck"), tmp_path).step()
    assert result["done"]
    log = log_path(tmp_path, SPEC.id).read_text()
    assert log.startswith("Traceback") and "defense krum: ValueError: no luck" in log
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
def test_what_may_go_better_is_raised_and_tried_again(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught:
        trial_that_meets(error, tmp_path).step()
    assert caught.value is error


@pytest.fixture
def told() -> list[Any]:
    """What the observer of :func:`watching` was told."""
    return []


@pytest.fixture
def watching(tmp_path: Path, told: list[Any]) -> Watching:
    """The callbacks of a sweep of one trial."""
    observer: Any = SimpleNamespace(
        started=lambda spec: None,
        result=lambda *given: told.append(given),
        ended=lambda *given: told.append(given),
    )
    queue = Queue(Fixed([SPEC]), {})
    queue.fill()
    return Watching(queue, observer, Retrying(tmp_path))


def test_a_broken_stage_is_told_as_a_failure_of_its_run(
    watching: Watching, told: list[Any]
) -> None:
    result = {"rounds": 0, "report": Told(), "done": True, "failure": "defense krum: no luck"}
    kept = SimpleNamespace(metric_analysis={"rounds": {"min": 0}}, metric_n_steps={"rounds": {}})
    trial = SimpleNamespace(config={"id": SPEC.id}, last_result=result, run_metadata=kept)
    watching.on_trial_result(1, [], trial, result)
    watching.on_trial_complete(1, [], trial)
    assert kept == SimpleNamespace(metric_analysis={}, metric_n_steps={})
    assert watching.queue.failures == {SPEC.id: "defense krum: no luck"}
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


class FailedTrial:
    """A trial of Tune's that has failed and waits to start again."""

    def __init__(self, watching: Watching) -> None:
        self.watching = watching
        self.config: dict[str, Any] = {"id": SPEC.id}
        self.last_result: dict[str, Any] = {"rounds": 4}
        self.run_metadata = SimpleNamespace(metric_analysis={"rounds": {}}, metric_n_steps={})
        self.num_failures = 0
        self.error: Exception = ValueError()
        self.stopped = False

    def get_pickled_error(self) -> Exception:
        return self.error

    def get_error(self) -> str:
        return f'Failure # 3\n  File "a.py", line 3, in f\n{self.error!r}\n'

    def stop_trial(self, trial: FailedTrial) -> None:
        """What Tune's controller does."""
        self.stopped = True
        self.watching.on_trial_complete(1, [], trial)

    def fail(self, error: Exception) -> bool:
        """Whether it has failed for good now."""
        self.num_failures += 1
        self.error = error
        self.watching.retrying.on_trial_add(self, self)
        return self.stopped


def test_a_trial_whose_workers_die_in_one_place_is_given_up(
    watching: Watching, told: list[Any], tmp_path: Path
) -> None:
    trial = FailedTrial(watching)
    watching.retrying.on_trial_add(trial, trial)
    assert "pause_s" not in trial.config, "it is new"
    lost = RayActorError(error_msg="The actor died because its node has died. Node Id: 7b")
    assert not any(trial.fail(lost) for _ in range(20)), "a lost node is nobody's fault"
    assert trial.config["pause_s"] == 60
    killed = RayActorError(error_msg="Dead.\nWorker exit type: SYSTEM_ERROR")
    assert [trial.fail(killed) for _ in range(2)] == [False, False]
    trial.last_result = {"rounds": 5}
    assert [trial.fail(killed) for _ in range(3)] == [False, False, True]
    (reason,) = watching.queue.failures.values()
    assert reason == "its worker died 3 times in the same place: Worker exit type: SYSTEM_ERROR"
    assert told == [(SPEC, None, False)]
    assert "SYSTEM_ERROR" in log_path(tmp_path, SPEC.id).read_text()


def test_what_the_platform_raises_is_tried_a_few_times(watching: Watching) -> None:
    trial = FailedTrial(watching)
    assert [trial.fail(OSError("no route")) for _ in range(3)] == [False, False, True]
    assert watching.queue.failures == {SPEC.id: "OSError('no route')"}


def test_an_error_that_cannot_be_read_back_counts_as_one(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = FailedTrial(watching)

    def unreadable() -> NoReturn:
        raise TypeError("missing 1 required positional argument")

    monkeypatch.setattr(trial, "get_pickled_error", unreadable)
    assert [trial.fail(OSError("no route")) for _ in range(3)] == [False, False, True]


def test_a_trial_beyond_its_limits_is_given_up_at_once(watching: Watching, tmp_path: Path) -> None:
    log = log_path(tmp_path, SPEC.id)
    log.write_text("limit: grew to 2.1 GiB, more than --trial-memory 2\n")
    assert FailedTrial(watching).fail(RayActorError())
    assert watching.queue.failures == {SPEC.id: "grew to 2.1 GiB, more than --trial-memory 2"}
    watching.on_trial_start(1, [], FailedTrial(watching))
    assert not log.exists(), "the next try is another one"
