"""What `backstop check` says of somebody's own plug-in: a sound one, and ones with a fault each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backstop.platform import cli, loose
from tests.conftest import forget

SHEET = '''"""{title}

    Δ_i ← c · Δ_i

Shapes: rows (n, d) → (n, d).

Source: an example for the tests, 2025, equation 1.

Deviations: none.

>>> 1 + 1
2
"""

import torch

from backstop.platform.contract import Attack, Defense, Updates, stateless

'''
DEFENSE = '''
def {name}() -> Defense:
    """A defense."""

    def change(updates: Updates) -> Updates:
        {body}

    return stateless(change)
'''
CLIP = (
    "norms = updates.rows.norm(dim=1, keepdim=True)\n"
    "        scale = (norms.median() / norms.clamp_min(1e-12)).clamp_max(1.0)\n"
    "        return updates._replace(rows=updates.rows * scale)"
)
KEEP = "return updates"
STAMP = '''
TRIGGER, KINDS = True, ("image",)

def stamped(x):
    x = x.clone()
    x[..., -3:, -3:] = 1.0
    return x

def {name}() -> Attack:
    """An attack."""

    def poison(state, x, y, index, generator):
        return {poisoned}

    def goal(state, y):
        return torch.where(y == 0, -1, 0)

    return Attack(poison=poison, trigger=lambda state, x, draws: stamped(x), goal=goal)
'''


@pytest.fixture(autouse=True)
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The files that a test reads are forgotten after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loose, "FILES", {})
    yield
    forget()


def write(name: str, body: str, head: str = SHEET) -> str:
    text = head.replace("{title}", "An example.")
    Path(f"{name}.py").write_text(text + body.replace("{name}", name))
    return f"{name}.py"


def defense(name: str, body: str, facts: str = "") -> str:
    return write(name, facts + DEFENSE.replace("{body}", body))


def checked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, list[str]]:
    """Exit code, all of stdout, and the lines that say what is to be mended."""
    code = cli.main(["check", *arguments])
    out = capsys.readouterr().out
    marked = [line.strip() for line in out.splitlines() if line.startswith("  ✗ ")]
    return code, out, [line.removeprefix("✗ ") for line in marked]


def test_a_sound_defense_has_nothing_to_mend(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, wrong = checked(capsys, defense("median_length", CLIP))
    assert (code, wrong) == (0, [])
    assert out.startswith("defense median_length: An example.\n  facts: VERSION = 1")
    assert "under badnets(share=0.2): accuracy 9" in out and "FedAvg: accuracy 9" in out
    assert "seconds for 15 rounds: " in out
    assert out.endswith("defense median_length: nothing is to be mended.\n")


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        (
            "in_place",
            "updates.rows.mul_(0.5)\n        return updates",
            "arguments: expected arguments left as they are; the updates' rows were changed",
        ),
        (
            "nan_rows",
            "return updates._replace(rows=updates.rows / 0 * 0)",
            "any number of rows: expected finite rows and weights; saw 1 of 1 rows with NaN",
        ),
        (
            "global_draws",
            "return updates._replace(rows=updates.rows + torch.randn_like(updates.rows))",
            "draws: expected draws from the view's generator; saw draws from the global one",
        ),
        (
            "nothing",
            KEEP,
            "effect: every figure under an attack is FedAvg's",
        ),
        (
            "leaving",
            "raise SystemExit(0)",
            "any number of rows: raised SystemExit: 0",
        ),
    ],
)
def test_a_defense_with_a_fault_is_told_which(
    capsys: pytest.CaptureFixture[str], name: str, body: str, expected: str
) -> None:
    code, out, wrong = checked(capsys, defense(name, body))
    assert code == 1
    assert [line for line in wrong if line.startswith(expected)], wrong
    faults = "1 fault is" if len(wrong) == 1 else f"{len(wrong)} faults are"
    assert f"\ndefense {name}: {faults} to be mended; the line" in out
    if name == "nothing":
        assert [line.partition(":")[0] for line in wrong] == ["adversarial", "effect"]


def test_facts_that_are_wrong_or_untrue_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, wrong = checked(capsys, defense("psychic", CLIP, 'NEEDS = ("thoughts",)\n'))
    assert code == 1 and len(wrong) == 1
    assert wrong[0].startswith("facts: ") and "thoughts" in wrong[0]
    code, _, wrong = checked(capsys, defense("untrue", CLIP, 'GIVES = "row"\n'))
    assert code == 1
    assert wrong == ["facts: expected what GIVES='row' says; saw 10 of 10 rows"]


def test_a_data_sheet_with_gaps_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    head = SHEET[SHEET.index("import torch") :]
    code, _, wrong = checked(capsys, write("bare", DEFENSE.replace("{body}", CLIP), head))
    assert code == 1
    assert [line.partition(";")[0] for line in wrong] == [
        "data sheet: there is none",
        "example: there is none",
    ]
    head = SHEET.replace("Deviations: none.\n", "").replace("\n2\n", "\n3\n")
    code, _, wrong = checked(capsys, write("gaps", DEFENSE.replace("{body}", CLIP), head))
    assert code == 1
    assert wrong[0].startswith("data sheet: no line begins with Deviations:")
    assert wrong[1] == "example: 1 + 1 Expected: 3 Got: 2"


def test_an_attack_beats_its_clean_twin_or_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    bites = write("bites", STAMP.replace("{poisoned}", "stamped(x), 0 * y"))
    code, out, wrong = checked(capsys, bites)
    assert (code, wrong) == (0, [])
    assert "its clean twin: accuracy" in out
    code, _, wrong = checked(capsys, write("still", STAMP.replace("{poisoned}", "x, y")))
    assert code == 1
    assert [line.partition(":")[0] for line in wrong] == ["poisoned batches", "effect"]
    assert "above its clean twin's, less than 2%" in wrong[1]


def test_a_folder_and_names_are_checked_too(capsys: pytest.CaptureFixture[str]) -> None:
    defense("one_defense", KEEP)
    defense("other_defense", KEEP)
    code, out, _ = checked(capsys, ".")
    assert code == 1
    for name in ("one_defense", "other_defense"):
        assert f"defense {name}: 2 faults are to be mended; the lines that begin with ✗" in out
    assert checked(capsys, "digits")[2] == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "backstop: check mine.py: there is no such Python file"),
        ("x = 1\n", "has no function mine(), named as the file"),
        ("def mine(): return 3\n", "mine() returns int, which is no plug-in"),
        ("def mine(): raise ValueError('no')\n", "without parameters raised ValueError: no"),
        ("import nothing_like_it\n", "raised ModuleNotFoundError"),
    ],
)
def test_what_is_no_plugin_is_bad_input(
    capsys: pytest.CaptureFixture[str], content: str | None, said: str
) -> None:
    if content is not None:
        Path("mine.py").write_text(content)
    assert cli.main(["check", "mine.py"]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1
    assert cli.main(["check", "medain"]) == 2
    assert "did you mean 'median'" in capsys.readouterr().err


def test_a_name_that_is_taken_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", defense("median", KEEP)]) == 2
    assert "there is a defense 'median' already" in capsys.readouterr().err
