"""The ranking as a LaTeX table."""

from __future__ import annotations

from collections.abc import Sequence

from backstop.platform.results.figures.names import Json
from backstop.platform.results.figures.wording import margin
from backstop.platform.results.tables.columns import cell_text, columns_in, ranked_rows
from backstop.platform.results.tables.notes import ends_note, footnotes, incomplete

SPECIAL = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{sign: rf"\{sign}" for sign in "&%$#_{}"},
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "×": r"$\times$",
        "–": "--",
        "…": r"\dots{}",
        "†": r"\textdagger{}",
        "‡": r"\textdaggerdbl{}",
        "§": r"\S{}",
        "¶": r"\P{}",
        "‖": r"$\Vert$",
        "\n": " ",
    }
)


def latex(document: Json) -> str:
    r"""A tabular of the ranking and its footnotes, for a paper that loads the package booktabs."""
    ranked = ranked_rows(document)
    columns = columns_in("latex", ranked)
    alignments = "".join(column.alignment[0] for column in columns)
    rows = [[cell_text(column, row, margin) for column in columns] for row in ranked]
    lines = [
        "% needs \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{{alignments}}}",
        "\\toprule",
        _line([column.heading for column in columns]),
        "\\midrule",
        *map(_line, rows),
        "\\bottomrule",
        "\\end{tabular}",
        *(f"\\par{{\\footnotesize {latex_text(note)}.}}" for note in _notes(document)),
    ]
    return "\n".join(lines) + "\n"


def latex_text(text: object) -> str:
    r"""A text as LaTeX prints it.

    >>> latex_text("krum_2(f=50%)")
    'krum\\_2(f=50\\%)'
    """
    return str(text).translate(SPECIAL)


def _notes(document: Json) -> list[str]:
    ends = ends_note(document)
    notes = [f"In percent; {ends}" if ends else "In percent"]
    if absent := incomplete(document):
        notes.insert(0, absent)
    return notes + footnotes(document)


def _line(cells: Sequence[str]) -> str:
    return f"{' & '.join(map(latex_text, cells))} \\\\"
