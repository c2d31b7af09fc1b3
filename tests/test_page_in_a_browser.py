"""The page in a real browser: sorted, filtered, opened, on a phone, in the dark, on paper, and
without its script.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from backstop.platform.results.leaderboard import ranking
from backstop.platform.results.leaderboard.document import Document
from backstop.platform.results.report import page
from backstop.platform.results.tracking.runs import Run
from backstop.platform.specs.part import Part
from tests.boards import BASE, DEFENSES, run, runs
from tests.browser import Browser, Tab, needs_browser, open_browser, open_tab
from tests.evil import evil

pytestmark = needs_browser
PHONE = 390
PAPER = 1032  # a4 landscape, less the margins
SHOWN = "[...document.querySelectorAll('{} tbody > tr[data-row]')].filter(row => !row.hidden)"
RANKING = "section.board:not([hidden], .aside) table.ranking"
OPENED = "document.querySelector('.opened .detail')"
OPENERS = "document.querySelectorAll('button.open')"


@pytest.fixture(scope="module")
def document() -> Document:
    return ranking.build_document(runs(), "demo")


@pytest.fixture(scope="module")
def file(document: Document, tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = tmp_path_factory.mktemp("page") / "page.html"
    written.write_text(page.page(document, runs()))
    return written


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def tab(browser: Browser, file: Path) -> Iterator[Tab]:
    """The page in a wide window; whatever a test does there, nothing is asked for or complained
    of.
    """
    opened = open_tab(browser, file)
    yield opened
    assert opened.complaints() == []
    assert opened.requests() == [file.as_uri()]


def rows(tab: Tab, table: str = RANKING) -> list[str]:
    """The numbers of the rows that are shown, in their order."""
    listed: list[str] = tab.value(f"{SHOWN.format(table)}.map(row => row.dataset.row)")
    return listed


def head(tab: Tab, heading: str) -> int:
    """The position of a column."""
    heads = tab.value(
        f"[...document.querySelectorAll('{RANKING} thead th')].map(head => head.textContent)"
    )
    return list(heads).index(heading) + 1


def column(tab: Tab, heading: str) -> list[str]:
    """The sort keys of a column from top to bottom."""
    cells = f"row => row.cells[{head(tab, heading) - 1}].dataset.value"
    listed: list[str] = tab.value(f"{SHOWN.format(RANKING)}.map({cells})")
    return listed


def choose(tab: Tab, name: str, value: str) -> None:
    """Set a filter as a reader does."""
    tab.value(
        f"(() => {{ const field = document.querySelector('#controls').elements[{json.dumps(name)}];"
        f" field.value = {json.dumps(value)};"
        " field.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def number(document: Document, wanted: Callable[[str], bool]) -> set[str]:
    """The numbers of the defenses whose texts are wanted."""
    listed = enumerate(row["defense"] for row in document["rows"])
    return {str(place) for place, defense in listed if wanted(defense)}


# -- sorting


def test_a_click_on_a_head_sorts_and_another_one_turns_it_round(tab: Tab) -> None:
    before = rows(tab)
    place = head(tab, "accuracy")
    tab.click(f"{RANKING} thead th:nth-child({place}) button")
    falling = [float(value) for value in column(tab, "accuracy")]
    assert falling == sorted(falling, reverse=True)
    assert rows(tab) != before
    state = f"document.querySelector('{RANKING} [aria-sort]')"
    assert tab.value(f"[{state}.textContent, {state}.ariaSort]") == ["accuracy", "descending"]
    for table in ("table.ranges", "table.matrix"):
        assert rows(tab, table) == rows(tab)
    tab.click(f"{RANKING} thead th:nth-child({place}) button")
    assert [float(value) for value in column(tab, "accuracy")] == falling[::-1]
    assert tab.value(f"document.querySelectorAll('{RANKING} [aria-sort]').length") == 1
    tab.click(f"{RANKING} thead th:nth-child(1) button")
    ranks = [value for value in column(tab, "#") if value]
    assert list(map(float, ranks)) == sorted(map(float, ranks))
    assert set(column(tab, "#")[len(ranks) :]) == {""}  # what has no rank comes last
    tab.click("#all-rows")
    assert rows(tab) == before
    assert tab.value(f"document.querySelectorAll('{RANKING} [aria-sort]').length") == 0


def test_a_head_sorts_by_keyboard_too(tab: Tab) -> None:
    place = head(tab, "defense")
    tab.value(f"document.querySelector('{RANKING} thead th:nth-child({place}) button').focus()")
    tab.press("Enter")
    names = tab.value(f"{SHOWN.format(RANKING)}.map(row => row.cells[1].textContent.trim())")
    assert names == sorted(names)
    assert names[0].startswith("and_mask")


def test_what_a_row_lacks_comes_last_either_way(browser: Browser, tmp_path: Path) -> None:
    success = {"clean_accuracy": 0.9, "attack_success_rate": 0.5}
    given = [
        run("badnets", "fedavg", 0, success),
        run("badnets", "median", 0, {**success, "robust_accuracy": 0.3}),
        run("badnets", "krum(f=1)", 0, {**success, "robust_accuracy": 0.7}),
    ]
    written = tmp_path / "page.html"
    written.write_text(page.page(ranking.build_document(given, "three"), given))
    tab = open_tab(browser, written)
    place = head(tab, "robust accuracy")
    for expected in (["0.7", "0.3", ""], ["0.3", "0.7", ""]):
        tab.click(f"{RANKING} thead th:nth-child({place}) button")
        assert column(tab, "robust accuracy") == expected


# -- filtering


def test_words_are_searched_in_names_and_data_sheets(tab: Tab, document: Document) -> None:
    choose(tab, "text", "krum")
    assert set(rows(tab)) >= number(document, lambda defense: "krum" in defense)
    assert (
        tab.value("document.querySelector('#count').textContent") == f"{len(rows(tab))} of 20 rows"
    )
    choose(tab, "text", "BLANCHARD neurips")  # who wrote it and where, in any order and case
    assert set(rows(tab)) == number(document, lambda defense: "krum" in defense)
    for table in ("table.ranges", "table.matrix"):
        assert rows(tab, table) == rows(tab)
    tab.click("#all-rows")
    assert len(rows(tab)) == len(DEFENSES)


def test_defenses_by_what_they_need_and_when_they_were_published(
    tab: Tab, document: Document
) -> None:
    needing = number(document, lambda defense: "krum" in defense)
    choose(tab, "needs", "+assumed f")
    assert set(rows(tab)) == needing
    for nothing in ("-assumed f", "0"):
        choose(tab, "needs", nothing)
        assert set(rows(tab)) == number(document, bool) - needing
    choose(tab, "needs", "")
    choose(tab, "year", "2024")
    assert set(rows(tab)) == number(document, lambda defense: defense.startswith("invariant"))


@pytest.mark.parametrize("measure", ["", "worst"])
def test_a_chosen_attack_has_its_column(tab: Tab, document: Document, measure: str) -> None:
    attack = "edge_case(target=0)+model_replacement(strength=5.0)"
    choose(tab, "attack", attack)
    choose(tab, "measure", measure)
    heading = "highest success, chosen cells" if measure else "mean success, chosen cells"
    shown = dict(zip(rows(tab), map(float, column(tab, heading)), strict=True))
    defenses = [row["defense"] for row in document["rows"]]
    met = {cell["defense"]: cell for cell in document["cells"] if cell["attack"] == attack}
    for place, rate in shown.items():
        assert rate == met[defenses[int(place)]]["attack_success_rate"]["mean"]
    heads = "[...document.querySelectorAll('table.matrix thead th[data-attack]')]"
    left = f"{heads}.filter(head => !head.hidden).map(head => head.dataset.attack)"
    assert tab.value(left) == [attack]
    tab.value(f"{OPENERS}[0].click()")
    cells = "[...document.querySelectorAll('.opened .cells tbody tr')].filter(row => !row.hidden)"
    assert tab.value(f"{cells}.map(row => row.dataset.attack)") == [attack]


def test_mean_or_worst_case(tab: Tab) -> None:
    pictures = (
        "[...document.querySelectorAll('figure[data-measure]')]"
        ".filter(item => !item.hidden).map(item => item.dataset.measure)"
    )
    assert tab.value(pictures) == ["mean", "worst"]
    choose(tab, "measure", "worst")
    assert tab.value(pictures) == ["worst"]
    shown = f"[...document.querySelectorAll('{RANKING} thead th')].filter(head => !head.hidden)"
    heads = tab.value(f"{shown}.map(head => head.textContent)")
    assert "attack success" not in heads
    rising = [float(value) for value in column(tab, "worst excess")]
    assert rising == sorted(rising)
    choose(tab, "measure", "mean")
    assert tab.value(pictures) == ["mean"]
    rising = [float(value) for value in column(tab, "mean excess")]
    assert rising == sorted(rising)


@pytest.fixture(scope="module")
def two_settings() -> list[Run]:
    """Four defenses on one dataset, three on another, and one more under an untargeted attack."""
    success = {"clean_accuracy": 0.9, "attack_success_rate": 0.5}
    given = []
    for dataset, defenses in (("digits", ["median", "krum(f=1)", "rfa"]), ("patches", ["median"])):
        base = BASE.replace(dataset=Part(dataset))
        for defense in ("fedavg", *defenses):
            given.append(run("badnets", defense, 0, success, base=base, rounds=20))
            given.append(run("none", defense, 0, {"clean_accuracy": 0.95}, base=base, rounds=20))
    harm = {"clean_accuracy": 0.3}
    given += [run("sign_flip", defense, 0, harm) for defense in ("fedavg", "median", "dnc(f=1)")]
    return [item._replace(id=f"{place:064d}") for place, item in enumerate(given)]


def test_each_setting_has_its_board(
    browser: Browser, tmp_path: Path, two_settings: list[Run]
) -> None:
    document = ranking.build_document(two_settings, "two")
    written = tmp_path / "page.html"
    written.write_text(page.page(document, two_settings))
    tab = open_tab(browser, written)
    assert len(rows(tab)) == len(document["rows"]) == 4
    patches = next(board for board in document["boards"] if "patches" in board["title"])
    choose(tab, "setting", patches["setting"])
    assert len(rows(tab)) == 2
    assert tab.value(
        f"document.querySelector('{RANKING}').closest('section').innerText"
    ).startswith(patches["title"])
    assert rows(tab, "table.ranges") == rows(tab)
    tab.click(f"{RANKING} tbody tr:nth-child(1) td:nth-child(3)")
    cells = f"[...{OPENED}.querySelectorAll('.cells tbody tr')].filter(row => !row.hidden)"
    assert set(tab.value(f"{cells}.map(row => row.dataset.setting)")) == {patches["setting"]}
    choose(tab, "setting", "")
    assert len(rows(tab)) == 4
    assert tab.complaints() == []


def test_a_reader_weighs_the_settings(browser: Browser, tmp_path: Path) -> None:
    given = weighed_runs()
    document = ranking.build_document(given, "weighed")
    written = tmp_path / "page.html"
    written.write_text(page.page(document, given))
    tab = open_tab(browser, written)
    titles = [board["title"] for board in document["boards"]]
    before = rows(tab)
    assert tab.value(f"document.querySelector('{RANKING} th.weighed').hidden")
    weigh(tab, titles, {"digits": 1, "patches": 0})
    assert not tab.value(f"document.querySelector('{RANKING} th.weighed').hidden")
    (digits,) = (board for board in document["boards"] if "digits" in board["title"])
    by_score = sorted((row["score"]["mean"] for row in digits["rows"]), reverse=True)
    assert weighed_scores(tab) == pytest.approx(by_score)
    weigh(tab, titles, {"digits": 3, "patches": 1})
    alone, both = (
        next(row["score"]["mean"] for row in board["rows"] if row["defense"] == "median")
        for board in (digits, document)
    )
    assert any(score == pytest.approx((alone + both) / 2) for score in weighed_scores(tab))
    tab.click("#all-rows")
    assert rows(tab) == before
    assert tab.value(f"document.querySelector('{RANKING} th.weighed').hidden")
    assert tab.complaints() == []


def weighed_scores(tab: Tab) -> list[float]:
    """The scores by the reader's weights, from top to bottom."""
    return [float(value) for value in column(tab, "score, weighed") if value]


def weigh(tab: Tab, titles: Sequence[str], weights: Mapping[str, float]) -> None:
    """Give each setting the weight of the dataset that its title names."""
    for place, title in enumerate(titles):
        (weight,) = (weight for dataset, weight in weights.items() if dataset in title)
        tab.value(
            f"(() => {{ const field = document.querySelectorAll('[name=weight]')[{place}];"
            f" field.value = {weight};"
            " field.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )


def weighed_runs() -> list[Run]:
    """Three defenses on two datasets, each best on another one and all without a cost."""
    success = {
        "digits": {"fedavg": 0.9, "median": 0.2, "rfa": 0.6},
        "patches": {"fedavg": 0.9, "median": 0.8, "rfa": 0.1},
    }
    given = []
    for dataset, rates in success.items():
        base = BASE.replace(dataset=Part(dataset))
        for defense, rate in rates.items():
            attacked = {"clean_accuracy": 0.9, "attack_success_rate": rate}
            calm = {"clean_accuracy": 0.9, "attack_success_rate": 0.0}
            given.append(run("badnets", defense, 0, attacked, base=base))
            given.append(run("badnets", defense, 0, calm, base=base, dormant=True))
            given.append(run("none", defense, 0, {"clean_accuracy": 0.9}, base=base))
    return [item._replace(id=f"{place:064d}") for place, item in enumerate(given)]


def test_untargeted_attacks_have_a_board_beside(
    browser: Browser, tmp_path: Path, two_settings: list[Run]
) -> None:
    document = ranking.build_document(two_settings, "two")
    written = tmp_path / "page.html"
    written.write_text(page.page(document, two_settings))
    tab = open_tab(browser, written)
    beside = "section.aside table.ranking"
    before = rows(tab)
    assert len(rows(tab, beside)) == len(document["untargeted"]) == 3
    tab.click(f"{beside} thead th:nth-child(2) button")
    names = tab.value(f"{SHOWN.format(beside)}.map(row => row.cells[1].textContent.trim())")
    assert names == sorted(names)
    assert rows(tab) == before  # what is sorted beside leaves the ranking as it was
    stuck = f"document.querySelectorAll('{beside} tbody tr:first-child td.name').length"
    assert tab.value(stuck) == 1  # the defense alone stays where the table scrolls
    tab.click(f"{beside} tbody tr:nth-child(1) td:nth-child(3)")
    assert "dnc" in tab.value(f"{OPENED}.textContent")  # it stands in no other board
    choose(tab, "text", "median")
    assert len(rows(tab, beside)) == 1
    assert tab.complaints() == []


# -- opening


def test_a_click_on_a_row_opens_it_and_another_one_closes_it(tab: Tab) -> None:
    third = f"{RANKING} tbody > tr[data-row]:nth-child(3)"
    tab.click(f"{third} td:nth-child(4)")
    assert tab.value(f"{OPENED}.id") == "defense-2"
    assert tab.value(f"document.querySelector('{third} button').ariaExpanded") == "true"
    assert tab.value(f"{OPENED}.querySelectorAll('.cells tbody tr').length") == 4
    assert tab.value(f"{OPENED}.querySelectorAll('.commands pre').length") == 4
    assert "Source:" in tab.value(f"{OPENED}.querySelector('.sheet').textContent")
    tab.click(f"{third} td:nth-child(4)")
    assert tab.value(OPENED) is None


def test_keys_open_a_row_and_it_stays_open_when_sorted(tab: Tab) -> None:
    tab.value(f"{OPENERS}[4].focus()")
    tab.press("Enter")
    assert tab.value(f"{OPENED}.id") == "defense-4"
    tab.click(f"{RANKING} thead th:nth-child(2) button")
    above = "document.querySelector('.opened').previousElementSibling.dataset.row"
    assert tab.value(above) == "4"
    tab.value("document.querySelector('[data-row=\"4\"] button.open').focus()")
    tab.press(" ")
    assert tab.value(OPENED) is None


def test_an_address_opens_its_row(browser: Browser, file: Path) -> None:
    tab = open_tab(browser, file)
    for address, opened in (("#defense-7", "defense-7"), ("#ranking", "defense-7")):
        changed = f"new Promise(then => addEventListener('hashchange', () => then({OPENED}.id)))"
        assert tab.value(f"location.hash = {address!r}, {changed}") == opened
    assert tab.complaints() == []


# -- windows of every kind


@pytest.mark.parametrize("spoilt", [False, True])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [PHONE, 1200])
def test_no_complaint_no_request_and_no_page_wider_than_its_window(
    browser: Browser, file: Path, tmp_path: Path, width: int, dark: bool, spoilt: bool
) -> None:
    if spoilt:
        file = tmp_path / "evil.html"
        file.write_text(page.page(*evil(runs())))
    tab = open_tab(browser, file, width=width, dark=dark)
    tab.value(f"{OPENERS}[0].click()")
    tab.value("for (const item of document.querySelectorAll('details')) item.open = true")
    assert tab.value("document.documentElement.scrollWidth") <= width
    assert tab.value(f"{OPENED}.getBoundingClientRect().width") <= width
    assert tab.complaints() == []
    assert tab.requests() == [file.as_uri()]


def contrast(tab: Tab, selector: str) -> float:
    """How far text and ground are apart: WCAG 2, from 1 to 21."""
    ratio: float = tab.value(
        "(() => {"
        " const luminance = color => {"
        "  const parts = color.match(/[\\d.]+/g).slice(0, 3).map(part => part / 255)"
        "   .map(part => part <= .03928 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4);"
        "  return .2126 * parts[0] + .7152 * parts[1] + .0722 * parts[2]; };"
        f" const element = document.querySelector('{selector}');"
        " let ground = element;"
        " while (getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)')"
        "  ground = ground.parentElement;"
        " const [low, high] = [getComputedStyle(element).color,"
        "  getComputedStyle(ground).backgroundColor].map(luminance).sort((a, b) => a - b);"
        " return (high + .05) / (low + .05); })()"
    )
    return ratio


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_in_either_theme(browser: Browser, file: Path, dark: bool) -> None:
    tab = open_tab(browser, file, dark=dark)
    ground = tab.value("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") is not dark
    for selector in ("h1", ".soft", "tr.first td", "tr.first small", "thead th", "#controls label"):
        assert contrast(tab, selector) >= 4.5, selector


def test_the_page_on_paper(browser: Browser, file: Path) -> None:
    tab = open_tab(browser, file, width=PAPER, dark=True)
    assert tab.pdf().startswith(b"%PDF")
    tab.ask("Emulation.setEmulatedMedia", media="print")
    assert tab.value("document.documentElement.scrollWidth") <= PAPER
    assert tab.value("getComputedStyle(document.querySelector('#controls')).display") == "none"
    assert tab.value("getComputedStyle(document.querySelector('.scroll')).overflow") == "visible"
    assert tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_without_its_script_the_page_holds_everything(browser: Browser, file: Path) -> None:
    tab = open_tab(browser, file, script=False)
    assert tab.value("document.querySelector('#controls').offsetHeight") == 0
    assert tab.value("document.querySelectorAll('button.open, .opened').length") == 0
    assert len(rows(tab)) == len(DEFENSES)
    homes = "document.querySelectorAll('.homes > details > .detail')"
    assert tab.value(f"{homes}.length") == len(DEFENSES)
    assert tab.value("document.querySelector('.homes').offsetHeight") > 0
    tab.click(f"{RANKING} tbody tr:nth-child(3) a.open")  # leads to what stands behind the row
    assert tab.value("document.querySelector('#defense-2').checkVisibility()")
    assert tab.complaints() == []


def test_the_policy_stops_every_other_script(browser: Browser, file: Path, tmp_path: Path) -> None:
    text = file.read_text()
    broken = tmp_path / "broken.html"
    broken.write_text(text.replace("<h1>", '<h1 onclick="title=1"><script>title = 2</script>'))
    tab = open_tab(browser, broken)
    tab.click("h1")
    assert tab.value("typeof title") == "undefined"
    assert "Content Security Policy" in str(tab.complaints())
    assert tab.value("document.documentElement.className") == "live"  # ours ran
