"""benchmarks/style.py counts what its docstring says, on files written for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import style

LEFT = '''"""A docstring is no code."""

LIMIT = 3


def place(found, *, limit=LIMIT):
    """Nor is this."""
    # nor this
    return found if found < limit else [x for x in found]
'''
RIGHT = """LIMIT = 4
_OWN = 5


class Shelf:
    def place(self, book):
        for shelf in book:
            if shelf:
                continue
            elif book:
                break
        else:
            return 0
        try:
            return 1
        except ValueError:
            return 2
"""


@pytest.fixture
def files(tmp_path: Path) -> list[style.File]:
    (tmp_path / "left.py").write_text(LEFT)
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "__init__.py").write_text("x = 1\n")
    (tmp_path / "test_left.py").write_text("x = 1\n")
    (tmp_path / "empty.py").write_text('"""Nothing."""\n')
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "one.py").write_text("LIMIT = 5\n")
    return style.read_folder(tmp_path)


def test_tests_and_files_without_code_are_left_out(files: list[style.File]) -> None:
    assert [file.path.as_posix() for file in files] == ["datasets/one.py", "left.py", "right.py"]


def test_only_code_is_counted(files: list[style.File]) -> None:
    left = files[1]
    assert len(left.tokens) == 3 + 12 + 14  # LIMIT; the def's line; the return's line
    assert style.tokens_per_line([left]) == pytest.approx(29 / 3)
    assert style.function_tokens([left]) == [14]


def test_expressions_are_counted_per_line_of_the_file(files: list[style.File]) -> None:
    assert style.ternaries([files[1]]) == pytest.approx(1000 / 9)
    assert style.comprehensions([files[1]]) == pytest.approx(1000 / 9)


def test_long_lines_are_those_over_the_limit(tmp_path: Path) -> None:
    (tmp_path / "wide.py").write_text(f"a = '{'x' * 94}'\nb = '{'x' * 95}'\n")
    assert style.long_lines(style.read_folder(tmp_path)) == pytest.approx(50)


def test_complexity_is_that_of_mccabe(files: list[style.File]) -> None:
    (function,) = style.functions(files[2])
    assert style.complexity(function) == 1 + 2 + 2 + 1  # for with else, if with elif, except


def test_a_name_has_two_meanings_where_two_files_define_it(files: list[style.File]) -> None:
    assert style.two_meanings(files) == {"LIMIT": ["left.py", "right.py"]}  # a method is no name


def test_vague_words_are_counted_as_names(files: list[style.File]) -> None:
    assert style.vague(files) == {"found": 4, "place": 2}


def test_every_figure_has_a_value(
    capsys: pytest.CaptureFixture[str], files: list[style.File]
) -> None:
    style.print_table({"here": files})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(style.FIGURES)
    assert all(line.split()[-1].replace(".", "").isdigit() for line in lines[1:])


def test_a_public_name_of_the_platform_has_one_meaning() -> None:
    assert style.two_meanings(style.read_folder(style.ROOT / "platform")) == {}
