"""The page: the same bytes every time, and nothing from a run that acts in it."""

from __future__ import annotations

import base64
import hashlib
import re
import warnings
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import pytest
from matplotlib.axes import Axes

from backstop.platform.contract import Part
from backstop.platform.params import BadInput
from backstop.platform.results.figures.names import ChainName, chain_label
from backstop.platform.results.leaderboard import ranking
from backstop.platform.results.leaderboard.document import Document
from backstop.platform.results.report import (
    by_knobs,
    by_round,
    by_strength,
    canvas,
    labels,
    marks,
    page,
    pictures,
)
from backstop.platform.results.tables import by_attack, columns
from backstop.platform.results.tables.columns import BoardColumn, ColumnKind
from backstop.platform.results.tracking.runs import Run
from backstop.platform.results.tracking.store import Store
from tests.boards import run, runs
from tests.evil import evil


@pytest.fixture(scope="module")
def given() -> list[Run]:
    return runs()


@pytest.fixture(scope="module")
def document(given: list[Run]) -> Document:
    return ranking.build_document(given, "demo")


@pytest.fixture(scope="module")
def text(document: Document, given: list[Run]) -> str:
    return page.page(document, given)


class Tags(HTMLParser):
    """Collects tags and attributes, and checks that what is opened is closed."""

    VOID = ("meta", "br", "wbr", "link", "input", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else(text: str) -> None:
    assert text.startswith("<!doctype html>")  # anything before it, and a browser turns to quirks
    tags = Tags(text)
    assert {"link", "iframe", "image", "object"}.isdisjoint(tags.tags)
    links = [value for name, value in tags.attributes if name in ("href", "xlink:href", "src")]
    ours = ("#", "data:image/png;base64,")
    assert all(value is not None and value.startswith(ours) for value in links)
    assert not re.search(r"url\((?!#)", text)
    assert "default-src 'none'" in text
    ids = [value for name, value in tags.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_the_policy_lets_our_script_run_and_no_other(text: str) -> None:
    assert Tags(text).tags.count("script") == 1
    script = text.partition("<script>")[2].partition("</script>")[0]
    assert script == (Path(page.__file__).parent / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', text)
    assert f"script-src 'sha256-{digest}';" in policy
    assert "unsafe-eval" not in policy


def test_the_page_holds_what_it_must(text: str, document: Document) -> None:
    pictures = text.partition("Row by row")[0]
    assert pictures.count("<svg") == 6  # two fronts, two curves, two maps
    (table,) = re.findall(r'<table class="matrix.*?</table>', text, re.DOTALL)
    # below the defenses: clean twin, untriggered, what the adversary knows
    assert table.count("<tr") == 1 + len(document["rows"]) + 3
    for words in (
        "demo",
        document["rule"][-40:],
        "backstop leaderboard --experiment demo",
        "mask threshold τ",
        "model_replacement",
    ):
        assert words in text


def test_same_runs_same_bytes(text: str, document: Document, given: list[Run]) -> None:
    assert page.page(ranking.build_document(given[::-1], "demo"), given[::-1]) == text
    assert pictures.ranking_picture(document) == pictures.ranking_picture(document)


def test_a_bare_experiment_has_a_page() -> None:
    """One run, no attack success, no curves, no interval."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metrics in (
            {"clean_accuracy": 0.5},
            {"clean_accuracy": 0.5, "attack_success_rate": 0.25},
            {},
        ):
            small = ranking.build_document([run("badnets", "fedavg", 0, metrics)], "one")
            Tags(page.page(small, []))
            assert pictures.ranking_picture(small).startswith(b"\x89PNG")
        clean = ranking.build_document([run("none", "fedavg", 0, {"clean_accuracy": 0.5})], "clean")
        assert clean["rows"] == []
        Tags(page.page(clean, []))


def test_the_map_needs_two_by_two(document: Document, given: list[Run]) -> None:
    cells = by_knobs.knob_map(document, "attack_success_rate")
    assert set(cells) == {(tau, trim) for tau in (0.2, 0.4, 0.6, 0.8) for trim in (0.1, 0.2, 0.3)}
    one = [item for item in given if "0.6" in str(item.spec["defense"]) or not item.spec["defense"]]
    assert by_knobs.knob_map(ranking.build_document(one, "x"), "attack_success_rate") == {}


def test_curves_are_asked_for_only_where_they_are_drawn(
    document: Document, given: list[Run]
) -> None:
    scene = by_round.strongest_attack(document)
    assert scene is not None
    assert scene.attack == "badnets(size=3, target=0)+model_replacement(strength=5.0)"
    drawn = by_round.curve_run_ids(document)
    assert len(drawn) == 2 * len(marks.best_per_family(document)) == 2 * 7
    names = {chain_label(item.spec["defense"], "defense") for item in given if item.id in drawn}
    assert names == {mark.row["defense"] for mark in marks.best_per_family(document)}


def test_names_at_the_ends_of_lines_keep_their_distance() -> None:
    assert labels.spread_labels([50.0, 50.0, 10.0], 7.0, 0.0, 100.0) == [50.0, 57.0, 10.0]
    assert labels.spread_labels([99.0, 98.0], 7.0, 0.0, 100.0) == [100.0, 93.0]


def test_what_comes_from_a_run_is_escaped(given: list[Run]) -> None:
    text = page.page(*evil(given))
    tags = Tags(text)
    assert "img" not in tags.tags
    assert tags.tags.count("script") == 1
    assert text.count("</script") == 1
    assert not [name for name, _ in tags.attributes if name.startswith("on")]
    assert "&lt;script&gt;alert(1)" in text


def test_a_name_with_dollar_signs_is_no_formula() -> None:
    drawn = canvas.draw_svg("$x^2$ & more", lambda axes: axes.set_title("$x^2$"), salt="", height=2)
    assert ">$x^2$</text>" in drawn
    assert 'aria-label="$x^2$ &amp; more"' in drawn


def test_a_name_that_would_leave_no_room_for_a_picture_is_cut() -> None:
    mark = marks.Mark({}, "norm_clip+" * 20, "#000000", best=True)
    assert len(mark.name) == marks.LONGEST_NAME
    assert mark.name.endswith("…")


def test_files(
    document: Document, given: list[Run], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = [item._replace(curves={}) for item in given]
    asked: list[list[str]] = []

    def curves(
        store: Store, runs: list[Run], ids: list[str], metrics: tuple[str, ...]
    ) -> list[Run]:
        asked.append(ids)
        assert (store.uri, runs, metrics) == ("sqlite:///there.db", bare, by_round.CURVES)
        return given

    monkeypatch.setattr(page, "with_curves", curves)
    store = Store("sqlite:///there.db", "")
    assert page.write_page(document, bare, store, tmp_path / "new").read_text() == text
    assert asked == [by_round.curve_run_ids(document)]
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        page.write_page(document, bare, store, tmp_path / "file")


def test_many_attacks_stand_in_the_rows_with_what_they_know() -> None:
    given = [
        item
        for item in runs()
        if [stage["name"] for stage in item.spec["defense"]] in ([], ["median"])
    ]
    text = page.page(ranking.build_document(given, "demo"), given)
    _, _, matrix = text.partition("attack by attack")
    heads = re.findall(r"<th (?:class|scope)[^>]*>(?:<span>)?(.*?)(?:</span>)?</th>", matrix)
    assert heads[:5] == ["attack", "knows", "clean twin", "untriggered", "median"]
    assert matrix.count('<td class="text">own data</td>') == 3


def test_strengths_of_an_attack_stand_in_their_order() -> None:
    given = [
        run(
            f"badnets+model_replacement(strength={strength})",
            defense,
            0,
            {"clean_accuracy": 0.9, "attack_success_rate": 0.8},
        )
        for strength in (10, 2, 1)
        for defense in ("fedavg", "median")
    ]
    table = by_attack.attack_table(ranking.build_document(given, "demo"))
    assert table is not None
    strengths = [line.attack.stages[-1].params["strength"] for line in table.lines]
    assert strengths == [1, 2, 10]


def test_a_picture_breaks_its_title_between_stages_only(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [
        run(
            f"phrase(words='{words}')+model_replacement(strength={strength})",
            "fedavg",
            0,
            {"clean_accuracy": 0.9, "attack_success_rate": strength / 20},
        )
        for words in ("a+b", "c")
        for strength in (1, 3, 10)
    ]
    titles: list[str] = []
    monkeypatch.setattr(Axes, "set_title", lambda _, title, **__: titles.append(title))
    pictures.strength_picture(ranking.build_document(given, "demo"))
    assert titles == [
        "phrase(words='a+b')\n+model_replacement(strength=…)",
        "phrase(words=c)\n+model_replacement(strength=…)",
    ]


def test_attacks_that_differ_in_strength_only_make_a_curve() -> None:
    chain = "badnets(share={})+model_replacement(strength={})"
    given = [
        run(
            chain.format(share, strength),
            defense,
            0,
            {"clean_accuracy": 0.9, "attack_success_rate": strength / 20},
        )
        for defense in ("fedavg", "median")
        for share, strength in ((0.1, 1.0), (0.1, 3.0), (0.1, 10.0), (0.2, 10.0))
    ]
    document = ranking.build_document(given, "demo")
    (group,) = by_strength.strength_groups(document)
    assert group.text == chain.format(0.1, "…")
    assert group.attacks == {value: chain.format(0.1, value) for value in (1.0, 3.0, 10.0)}
    assert "Attack success by strength: badnets+model_replacement(strength=…)" in page.page(
        document, given
    )
    assert pictures.strength_picture(document) == pictures.strength_picture(document)
    assert "by strength" not in page.page(
        ranking.build_document(given[1:4] + given[5:], "demo"), given
    )


def test_a_clean_twin_is_no_line_of_the_attack() -> None:
    twin = run(
        "badnets(size=3, target=0)+model_replacement(strength=5.0)",
        "fedavg",
        0,
        {"clean_accuracy": 0.9, "attack_success_rate": 0.0},
        dormant=True,
    )
    document = ranking.build_document([*runs(), twin], "demo")
    assert twin.id in {item["id"] for item in document["runs"]}
    assert twin.id not in by_round.curve_run_ids(document)


KRUM = ChainName("krum(f=3, m=<1>)", (Part("krum", {"f": 3}),))
QUOTED = ("phrase(words='a+b)c')", "phrase(words='a)b+c')")


def test_a_sign_in_a_quoted_value_cuts_no_name_in_two() -> None:
    """Two attacks whose values hold what is a sign elsewhere keep their values, and stay two."""
    given = [
        run(attack, defense, 0, {"clean_accuracy": 0.9, "attack_success_rate": 0.8})
        for attack in QUOTED
        for defense in ("fedavg", "median")
    ]
    document = ranking.build_document(given, "demo")
    text = page.page(document, given)
    heads = re.findall(r"<span>(phrase.*?)</span></th>", text)
    assert sorted(map(unescape, heads)) == sorted(QUOTED)


def test_a_family_is_made_of_names_not_of_text() -> None:
    given = [
        run(attack, defense, 0, {"clean_accuracy": 0.9, "attack_success_rate": 0.8})
        for attack in ("badnets",)
        for defense in ("fedavg", "norm_clip(norm='a(b')+median", "norm_clip(norm='c)d')+median")
    ]
    listed = marks.marks(ranking.build_document(given, "demo"))
    assert {mark.family for mark in listed} == {"fedavg", "norm_clip+median"}


HALF = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 3, "kind": "range"}
SHOWN = {  # kind of a column → value in a row, how the page shows it
    "count": (777, ">777<"),
    "share": (0.123, ">12.3<"),
    "rank": ((2, 1, 4), ">2 <small>(1–4)</small><"),
    "score": (
        {**HALF, "low": 0.5, "high": 0.5},
        '>50.0<span class="bar"><i style="width:50.0%"></i></span><',
    ),
    "figure": (HALF, ">50.0 <small>(40.0 to 60.0)</small><"),
    "chain": (KRUM, 'title="krum(f=3, m=&lt;1&gt;)">krum<small><span>f=3</span></small><'),
    "share of chain": ((0.123, KRUM), ">12.3 <small>krum(f=3)</small><"),
    "words": (["<b>", "two"], ">&lt;b&gt;, two<"),
}


@pytest.mark.parametrize("kind", get_args(ColumnKind))
def test_a_new_column_of_any_kind_stands_in_the_page(
    kind: ColumnKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [run("badnets", "fedavg", 0, {"clean_accuracy": 0.5})]
    document = ranking.build_document(given, "one")
    value, shown = SHOWN[kind]
    new = BoardColumn("new", "a <new> column", kind, ("page",), value=lambda _: value)
    monkeypatch.setattr(columns, "COLUMNS", (*columns.COLUMNS, new))
    text = page.page(document, [])
    assert ">a &lt;new&gt; column</th>" in text
    assert text.count(shown) == 1
