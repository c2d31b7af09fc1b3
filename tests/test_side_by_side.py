"""How the tests are dealt to several processes, as pytest-xdist is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.side_by_side import ByFile, together

SWEEPS = ("tests/test_stored.py", "tests/test_sweep.py", "tests/chaos/test_short.py")
ACTORS = ("tests/test_clients.py", "tests/test_sections.py")
TESTS = [
    "tests/attacks/test_dba.py::one",
    "tests/chaos/test_short.py::one",
    "tests/test_robust.py::one[]]",
    "tests/test_robust.py::other",
    "tests/test_seeds.py::one",
    "tests/test_seeds.py::other",
    "tests/test_stored.py::one[a@b]",
    "tests/test_sweep.py::Class::one",
]


class Process:
    """One that is given tests and runs none."""

    shutting_down = False

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.given: list[str] = []

    def send_runtest_some(self, numbers: list[int]) -> None:
        self.given += [TESTS[number] for number in numbers]

    def shutdown(self) -> None:
        self.shutting_down = True


def test_files_that_start_ray_are_as_one_and_others_by_themselves() -> None:
    assert {together(file) for file in SWEEPS} == {"ray"}
    assert {together(file) for file in ACTORS} == {"actors"}
    assert together("tests/test_seeds.py") == "tests/test_seeds.py"
    assert together("tests/side_by_side.py") != together("tests/test_robust.py")


def test_what_belongs_together_is_given_to_one_process_whatever_the_tests_are_called() -> None:
    options = SimpleNamespace(loadscopereorder=False)
    config: Any = SimpleNamespace(getvalue=lambda _: ["2*popen"], option=options)
    dealt, processes = ByFile(config), [Process("first"), Process("second")]
    given: list[Any] = list(processes)
    for process in given:
        dealt.add_node(process)
    for process in given:
        dealt.add_node_collection(process, TESTS)
    dealt.schedule()
    with_ray, other = (process.given for process in processes)
    assert with_ray == [TESTS[1], *TESTS[6:]], "the longest row begins at once"
    assert other == [TESTS[0], *TESTS[2:4]]
