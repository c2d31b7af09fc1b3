"""Every example of the README and the docs: commands are parsed and their specs validated, the
cheap ones run, text forms name what there is.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from backstop.platform import cli, loose, plugins
from backstop.platform.commands import run
from backstop.platform.params import BadInput
from backstop.platform.results.leaderboard.reading import document_file
from backstop.platform.rounds import starts
from backstop.platform.specs.part import complete_part, parse_chain, parse_part

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINE = re.compile(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*(backstop [a-z].*)$", re.MULTILINE)
INLINE = re.compile(r"`(backstop [a-z][^`\n]*)`")
FORM = re.compile(r"`([a-z][a-z0-9_]*(?:\([^`\n]*\))?(?:\+[a-z][a-z0-9_]*(?:\([^`\n]*\))?)*)`")
# SPACE, [NAME], A B, group|batch: a pattern, no example
PLACEHOLDER = re.compile(r"…|\.\.\.|\[[A-Z]+\]|\bA B\b|\b[A-Z]{2,}\b|\||Δ")
CODE = re.compile(r"^ *```python\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
SMALL = {"--rounds": "2", "--clients": "8", "--per-round": "4"}


MY_DEFENSE = '''"""Halving."""

from typing import Annotated

from backstop.platform.contract import Defense, stateless
from backstop.platform.params import Range


def my_defense(*, share: Annotated[float, Range(0, 1), "what is kept"] = 0.5) -> Defense:
    """Every row times a share."""
    return stateless(lambda updates: updates._replace(rows=updates.rows * share))
'''
MY_SPACE = """from backstop.platform.contract import Part, Spec


def my_space():
    return [Spec(defense=(Part("my_defense"),))]
"""
MY_TEXTS = """from backstop.platform.contract import Dataset


def my_texts() -> Dataset:
    return Dataset(load=lambda folder: None)
"""


def read(page: Path) -> str:
    """A page, a command that goes on in the next line as one line."""
    return page.read_text(encoding="utf-8").replace(" \\\n", " ")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


COMMANDS = sorted(
    {
        (name(page), command.strip())
        for page in PAGES
        for pattern in (LINE, INLINE)
        for command in pattern.findall(read(page))
    }
)
MENTIONED = re.compile(r"backstop [a-z]+")  # a command's name alone is no command line
EXAMPLES = [
    (page, line)
    for page, line in COMMANDS
    if not PLACEHOLDER.search(line) and not MENTIONED.fullmatch(line)
]
FORMS = sorted(
    {(name(page), form) for page in PAGES for form in FORM.findall(read(page)) if "(" in form}
)
CHAINS = [(page, form) for page, form in FORMS if "=" in form and not PLACEHOLDER.search(form)]


def words(line: str) -> list[str]:
    """The arguments as a shell gives them; what follows # is a remark, what follows > a file."""
    line = line.partition(" > ")[0]
    digest = loose.LooseFile("my_defense", MY_DEFENSE).digest
    return shlex.split(line.replace("@3f2a9c1be04d", f"@{digest}"), comments=True)[1:]


def written_files() -> dict[str, str]:
    """The plug-ins that the pages write down, by the names that their commands give them, and those
    that are the reader's.
    """
    files = {
        "my_texts.py": MY_TEXTS,
        "my_defense.py": MY_DEFENSE,
        "work/my_defense.py": MY_DEFENSE,
        "my_space.py": MY_SPACE,
    }
    for page in PAGES:
        for block in CODE.findall(read(page)):
            code = textwrap.dedent(block)
            for function in re.findall(r"^def ([a-z]\w*)\(", code, re.MULTILINE):
                files[f"{function}.py"] = code
            if "def lora(" in code:
                files["pretrained.py"] = code
            if "class Net(" in code:
                files["nets.py"] = code
    return files


# what several pages say is tried once
TRIED = {tuple(words(line)): (page, line) for page, line in reversed(EXAMPLES)}
FORMS_TRIED = {form: page for page, form in reversed(CHAINS)}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is kept between commands: MLflow's tables take a second to make."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def desk(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in with the files that the examples name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(loose, "FILES", {})
    monkeypatch.setattr(loose, "GIVEN", {})
    monkeypatch.setenv("BACKSTOP_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("BACKSTOP_CACHE", str(cache))
    for variable in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    for folder in ("data", "work", "clients", "vit", "bert"):
        (tmp_path / folder).mkdir()
    for folder in ("", "vit", "bert"):
        starts.save_start(tmp_path / folder / "model.safetensors", {"weight": torch.zeros(2, 2)})
    (tmp_path / "bert/config.json").write_text("{}", encoding="utf-8")
    for file, code in written_files().items():
        (tmp_path / file).write_text(code, encoding="utf-8")
    write_hospitals(tmp_path)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(3000, 3)).round(3)
    lines = [
        f"{a},{b},{'red' if c > 0 else 'blue'},{'no' if a + b > 0 else 'yes'}"
        for a, b, c in x.tolist()
    ]
    (tmp_path / "data/mine.csv").write_text("\n".join(["age,income,color,class", *lines]) + "\n")
    return tmp_path


def write_hospitals(folder: Path) -> None:
    """A csv file for each of eight hospitals, and one with all of them."""
    draws = np.random.default_rng(1)
    together = ["age,dose,benign,hospital,outcome"]
    for hospital in range(8):
        rows = draws.normal(size=(20 + 5 * hospital, 2)).round(2).tolist()
        lines = [
            (f"{age},{dose},{int(age < 0)}", "yes" if age > dose else "no") for age, dose in rows
        ]
        own = ["age,dose,benign,outcome", *(f"{inputs},{outcome}" for inputs, outcome in lines)]
        (folder / f"clients/hospital_{hospital}.csv").write_text("\n".join(own) + "\n")
        together += [f"{inputs},h{hospital},{outcome}" for inputs, outcome in lines]
    (folder / "all.csv").write_text("\n".join(together) + "\n")


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 20 and len(CHAINS) >= 30
    assert {words(line)[0] for _, line in EXAMPLES} >= {
        "run",
        "sweep",
        "list",
        "show",
        "data",
        "verify",
    }


@pytest.mark.parametrize(("page", "line"), TRIED.values())
def test_commands_are_right(
    page: str, line: str, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = words(line)
    options = cli.parser().parse_args(arguments)
    for file in getattr(options, "plugin", None) or ():
        plugins.give_file(file)
    verb = arguments[0]
    if verb == "run":
        assert run._requested_spec(options).id
    elif verb == "sweep":
        assert cli.main([*arguments, "--dry-run"]) == 0
        assert capsys.readouterr().out
    elif verb in ("list", "show", "data"):
        assert cli.main(arguments) == 0
        assert capsys.readouterr().out
    elif verb == "verify":
        of_ones_own = options.file.startswith("leaderboards/")
        assert of_ones_own or document_file(ROOT / options.file).is_file()
    elif verb == "compare":
        assert options.experiment or (ROOT / (options.board or options.first)).exists()
    elif verb in ("merge", "submit"):
        assert options.out  # parsed; the boards are the reader's
    elif verb == "check":
        # what check says is in tests/test_check.py
        assert plugins.owner(options.subject) or (desk / options.subject).exists()
    elif verb == "status":
        assert cli.main(arguments) in (0, 2)  # there is no store yet
    elif verb == "leaderboard":
        assert options.experiment  # parsed; its runs are those of a sweep before it
    elif verb == "advise":
        assert options.example or options.clients or options.file  # parsed; the answers are theirs
    else:
        pytest.fail(f"{page}: nobody says how to try {line!r}")


@pytest.mark.parametrize(("form", "page"), FORMS_TRIED.items())
def test_text_forms_are_right(form: str, page: str) -> None:
    for part in parse_chain(form):
        group = plugins.owner(part.name)
        assert group is not None, f"{page}: {form} names {part.name}, which is no plug-in"
        complete_part(part, group)
        assert parse_part(str(part)) == part


def test_patterns_and_mentions_name_commands_that_there_are() -> None:
    known = set(cli.parser()._subparsers._group_actions[0].choices)  # type: ignore[union-attr, arg-type]
    for _, line in COMMANDS:
        assert words(line.replace("[", "").replace("]", ""))[0] in known


CHEAP = [
    line
    for page, line in EXAMPLES
    if page == "README.md"
    and words(line)[0] == "run"
    and "phishing" not in line
    and "--start" not in line
]


@pytest.mark.parametrize("line", CHEAP)
def test_runs_of_the_readme_run(line: str, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With few rounds and clients; the shares of malicious clients and their rounds are the
    example's own.
    """
    arguments = words(line)
    for option in ("--attack-start", "--attack-stop"):
        if option in arguments:
            at = arguments.index(option)
            del arguments[at : at + 2]
    for option, value in SMALL.items():
        arguments += [option, value]  # the last one counts
    assert cli.main(arguments) == 0, capsys.readouterr().err
    assert "round 2/2" in capsys.readouterr().err
    if "--save" in arguments:
        saved = desk / arguments[arguments.index("--save") + 1]
        again = ["run", "--start", str(saved), "--attack", "badnets"]
        for option, value in SMALL.items():
            again += [option, value]
        assert cli.main(again) == 0, capsys.readouterr().err


def test_a_table_of_ones_own_runs_as_the_readme_writes_it(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "`table(path=mine.csv, label=class)`" in read(ROOT / "README.md")
    arguments = words("backstop run --dataset 'table(path=mine.csv, label=class)'")
    assert cli.main(arguments) == 0
    err = capsys.readouterr().err
    assert "read mine.csv: 3000 rows, none dropped; 2 classes: no " in err and "round 30/30" in err
    accuracy = float(re.findall(r"round 30/30  accuracy +([0-9.]+) %", err)[0])
    assert accuracy > 85  # the label is a line through two features
    assert cli.main(["data", "table(path=mine.csv, label=class)"]) == 0
    assert "color   category, 2 features: 2 values" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong", ["table(path=mine file.csv, label=class)", "table(path=mine.csv, label=clas)"]
)
def test_what_is_nearly_right_is_refused_in_one_line(
    wrong: str, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", "--dataset", wrong]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and (
        "quote the value of path" in err or "did you mean 'class'?" in err
    )


def test_a_form_with_capitals_is_a_pattern_and_no_example() -> None:
    assert PLACEHOLDER.search("backstop sweep SPACE") and not PLACEHOLDER.search(
        "backstop sweep quickstart --seeds 5"
    )
    with pytest.raises(BadInput):
        parse_chain("resnet18(norm=group|batch, stem=…")
