"""Names of chains are made from their parts, whatever stands in a text between quotation marks."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from backstop.platform.params import BadInput
from backstop.platform.results.figures.names import ChainName, chain_names
from backstop.platform.results.leaderboard import ranking
from backstop.platform.results.leaderboard.document import encode_document
from backstop.platform.results.leaderboard.reading import load_document
from backstop.platform.results.leaderboard.verification import differences, recompute
from backstop.platform.results.report import page
from backstop.platform.results.tables.markdown import markdown
from backstop.platform.results.tables.terminal import terminal_table
from backstop.platform.specs.part import Part, parse_chain
from tests.boards import run, runs

AWKWARD = ["cheap, now", "cheap, later", "a) + b", "(c + d", "it's", "x=1, y=2", "'"]


def names(*texts: str) -> list[str]:
    chains = {text: parse_chain(text) for text in texts}
    return [str(name) for name in chain_names(chains).values()]


def test_what_is_the_same_everywhere_is_left_out() -> None:
    assert names("krum(f=1)", "krum(f=2)+median(a=1e+16)", "median(a=1e+16)") == [
        "krum(f=1)",
        "krum(f=2)+median",
        "median",
    ]
    assert names("invariant(a=1)") == ["invariant"]


def test_two_phrases_have_two_names() -> None:
    assert names("phrase(words='cheap, now')", "phrase(words='cheap, later')") == [
        "phrase(words='cheap, now')",
        "phrase(words='cheap, later')",
    ]


def test_a_parameter_that_only_one_of_two_has_tells_them_apart() -> None:
    assert names("clip(norm=1)", "clip(norm=1, p=2)") == ["clip", "clip(p=2)"]


@pytest.mark.parametrize("words", AWKWARD)
def test_signs_between_quotation_marks_do_not_split_a_name(words: str) -> None:
    chain = (Part("phrase", {"share": 0.5, "words": words}), Part("pgd", {"radius": 1.0}))
    other = (Part("phrase", {"share": 0.5, "words": "other"}),)
    texts = ["+".join(map(str, stages)) for stages in (chain, other)]
    name, _ = chain_names(dict(zip(texts, (chain, other), strict=True))).values()
    assert name.text == texts[0]
    assert name.stages == (Part("phrase", {"words": words}), Part("pgd"))
    assert parse_chain(str(name)) == name.stages
    assert name.family == "phrase+pgd"
    assert name.on_lines().split("\n+") == [str(stage) for stage in name.stages]


@pytest.mark.parametrize("words", AWKWARD)
def test_parameters_are_listed_whole(words: str) -> None:
    name = ChainName("", (Part("phrase", {"share": 0.5, "words": words}),))
    assert name.parameters[0] == "share=0.5"
    assert parse_chain(f"phrase({name.parameters[1]})") == (Part("phrase", {"words": words}),)


def figures(success: float) -> dict[str, float]:
    return {"clean_accuracy": 0.9, "attack_success_rate": success}


def test_every_form_of_a_leaderboard_tells_awkward_chains_apart() -> None:
    attacks = [str(Part("phrase", {"share": 0.5, "words": words})) for words in AWKWARD]
    document = ranking.build_document(
        [run(attack, "fedavg", 0, figures(0.1 * at)) for at, attack in enumerate(attacks)], "x"
    )
    table = markdown(document).partition("attack by attack")[2]
    for words in AWKWARD:
        assert table.count(f"| {Part('phrase', {'words': words})} |") == 1
    assert str(Part("phrase", {"words": AWKWARD[0]})).replace("'", "&#39;") in page.page(
        document, []
    )
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(terminal_table(document, console.width))
    assert "fedavg" in console.export_text()


def test_cells_and_rows_carry_their_stages() -> None:
    attack, defense = "badnets(size=3)+pgd(radius=1.0)", "krum(f=1)+median"
    document = ranking.build_document([run(attack, defense, 0, figures(0.5))], "x")
    (row,), (cell,) = document["rows"], document["cells"]
    stages = [{"name": "krum", "params": {"f": 1}}, {"name": "median", "params": {}}]
    assert row["defense_stages"] == cell["defense_stages"] == stages
    assert [stage["name"] for stage in cell["attack_stages"]] == ["badnets", "pgd"]


def test_a_file_of_the_first_schema_is_worked_out_again(tmp_path: Path) -> None:
    """Its rows and cells followed another rule, and held no stages; its runs are what it knows."""
    document = ranking.build_document(runs(), "x")
    older = tmp_path / "leaderboard.json"
    first = {**document, "schema": 1, "rule": "by DER", "rows": [{"rank": 1}], "cells": [{}]}
    for added in ("boards", "untargeted", "searched"):
        del first[added]
    older.write_text(encode_document(first))
    read = load_document(older)
    assert read == document
    assert differences(read, recompute(read)) == []


@pytest.mark.parametrize("part", [{"runs": [{"id": "x"}]}, {"rows": [1]}, {"runs": 3}])
def test_a_file_that_was_changed_by_hand_is_bad_input(tmp_path: Path, part: dict[str, Any]) -> None:
    document = ranking.build_document([run("badnets", "fedavg", 0, figures(0.5))], "x")
    file = tmp_path / "leaderboard.json"
    file.write_text(encode_document(document | part))
    with pytest.raises(BadInput, match="changed by hand"):
        load_document(file)
