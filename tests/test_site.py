"""The site of docs/: it builds without a warning, its links lead somewhere, it asks nobody."""

from __future__ import annotations

import functools
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from backstop.platform import plugins
from tests.browser import Tab, empty_tab, needs_browser, open_browser
from tests.test_flower import environment

ROOT = Path(__file__).resolve().parents[1]
OPENED = (
    "index.html",
    "concepts/index.html",
    "plugins/defenses/krum/index.html",
    "plugins/attacks/adaptive/index.html",
    "plugins/search_spaces/index.html",
    "reference/contract/index.html",
    "results/suite-laptop-1/leaderboard/index.html",
    "tutorials/read_a_leaderboard/index.html",
)
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.MULTILINE | re.DOTALL
NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
needs_mkdocs = pytest.mark.skipif(
    find_spec("material") is None, reason="MkDocs is not installed: make docs brings it"
)


class Parsed(HTMLParser):
    """What a page links to, what it loads, and the anchors that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one element."""
        values = {key: value or "" for key, value in attrs}
        self.anchors |= {values[key] for key in ("id", "name") if key in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in ("script", "img", "iframe", "source") and "src" in values:
            self.loaded.append(values["src"])
        if tag == "link" and values.get("rel") not in ("canonical", "prev", "next", "edit"):
            self.loaded.append(values.get("href", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as make docs builds it."""
    place = tmp_path_factory.mktemp("site") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return place


@pytest.fixture(scope="module")
def parsed(site: Path) -> dict[Path, Parsed]:
    """Each page of the site but the one for addresses that are not there, whose links are from the
    site's root.
    """
    pages = sorted(file for file in site.rglob("*.html") if file.name != "404.html")
    return {page: Parsed(page.read_text(encoding="utf-8")) for page in pages}


@needs_mkdocs
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_plugin_has_a_page_and_every_page_has_a_heading(
    site: Path, parsed: dict[Path, Parsed]
) -> None:
    for group in plugins.PACKAGES:
        for name in plugins.names(group):
            page = site / "plugins" / group / name / "index.html"
            assert "Measured" in page.read_text(encoding="utf-8")
    assert not list(site.rglob("*.json.gz"))
    assert len(parsed) > sum(len(plugins.names(group)) for group in plugins.PACKAGES)


@needs_mkdocs
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_link_of_the_site_is_broken(site: Path, parsed: dict[Path, Parsed]) -> None:
    wrong = []
    for page, held in parsed.items():
        for link in [*held.links, *held.loaded]:
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            file = (page.parent / unquote(address.path)).resolve() if address.path else page
            file = file / "index.html" if file.is_dir() else file
            anchor = unquote(address.fragment)
            if not file.is_file() or (
                anchor and file in parsed and anchor not in parsed[file].anchors
            ):
                wrong.append((page.relative_to(site).as_posix(), link))
    assert wrong == []


@needs_mkdocs
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_page_stands_in_the_place_of_another(site: Path) -> None:
    for file in sorted((ROOT / "docs").glob("*.md")):
        title = file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        page = (site / file.stem / "index.html").read_text(encoding="utf-8")
        heading = re.search(r"<h1[^>]*>(.*?)(<a class=.headerlink|</h1>)", page, FENCED)
        assert heading is not None, file
        shown = unescape(re.sub(r"<[^>]+>", "", heading[1]))
        assert shown.strip() == title.replace("`", "").strip(), file


@needs_mkdocs
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_site_loads_nothing_from_elsewhere(parsed: dict[Path, Parsed]) -> None:
    for page, held in parsed.items():
        for address in held.loaded:
            parts = urlsplit(address)
            assert not parts.netloc and parts.scheme in ("", "data"), (page, address)


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """The site on a web server of this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *words: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def open_address(tab: Tab, address: str) -> None:
    """Go to an address and wait until all of the page is there."""
    tab.ask("Page.navigate", url=address)
    end = time.monotonic() + 60
    while tab.value("location.href + ' ' + document.readyState") != f"{address} complete":
        assert time.monotonic() < end, f"{address} does not load"
        time.sleep(0.05)


@needs_mkdocs
@needs_browser
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("width", [1400, 390])
def test_pages_open_in_a_browser_without_a_complaint_or_a_foreign_request(
    address: str, tmp_path: Path, width: int
) -> None:
    with open_browser(tmp_path / "profile") as browser:
        tab = empty_tab(browser, width, 900)
        for page in OPENED:
            open_address(tab, f"{address}/{page}")
            wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert tab.value(wide) <= 0, f"{page} is wider than the screen"
        search = "document.querySelector('input.md-search__input')"
        tab.value(f"{search}.focus(), {search}.value = 'krum'")
        tab.value(f"{search}.dispatchEvent(new Event('keyup')), true")
        end = time.monotonic() + 60
        while not tab.value("document.querySelectorAll('.md-search-result__item').length"):
            assert time.monotonic() < end, "the search finds nothing"
            time.sleep(0.2)
        assert tab.complaints() == []
        assert [url for url in tab.requests() if not url.startswith((address, "blob:"))] == []


@needs_mkdocs
@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_and_says_what_it_is_stored_with(
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if json.loads(file.read_text(encoding="utf-8"))["metadata"]["kernelspec"]["name"] == "flower":
        environment("flower", monkeypatch)
    copy = tmp_path / file.name
    shutil.copy(file, copy)
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "_build" / "execute.py"), str(copy)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    stored, again = (said(json.loads(one.read_text(encoding="utf-8"))) for one in (file, copy))
    assert stored
    if file.stem == "read_a_leaderboard":  # nothing is trained: the same on every machine
        assert again == stored
    else:
        assert len(again) == len(stored)
    for texts in (stored, again):
        CLAIMS.get(file.stem, list)(texts)


def check_red_team(texts: list[str]) -> None:
    """Attack success after the last round is as the text around it says."""
    ends = [
        {chain: float(last) for chain, last in SUCCESS.findall(text)}
        for text in texts
        if SUCCESS.search(text)
    ]
    nobody, loud, quiet = ends
    assert nobody["none"] < 0.1
    assert loud.pop("none") > 0.8
    assert max(loud.values()) < 0.2
    assert quiet["none"] > 0.6
    assert quiet["multi_krum(f=2)"] > 0.2  # told of two attackers, where three are
    assert quiet["norm_clip(norm=1)+median"] < 0.2


def check_cluster(texts: list[str]) -> None:
    """All runs end though a node is lost, and the board has the bytes of one machine's."""
    assert any("ours: 12/12 done" in text for text in texts)
    compared = [digests for text in texts if (digests := DIGEST.findall(text))]
    ((shared, alone),) = compared
    assert shared == alone


DIGEST = re.compile(r"^([0-9a-f]{64})  \S+/leaderboard\.json$", re.MULTILINE)
SUCCESS = re.compile(r"^(\S+)\n +accuracy .*\n +success .* (\S+)$", re.MULTILINE)
CLAIMS = {"a_sweep_on_a_cluster": check_cluster, "red_team_my_flower_app": check_red_team}


def said(notebook: dict[str, Any]) -> list[str]:
    """The texts of a notebook's outputs."""
    texts = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            texts.append("".join(text))
    return texts


def test_notebooks_are_stored_with_the_outputs_of_a_whole_run_and_are_small() -> None:
    assert NOTEBOOKS
    for file in NOTEBOOKS:
        notebook = json.loads(file.read_text(encoding="utf-8"))
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        counts = [cell["execution_count"] for cell in code]
        assert counts == list(range(1, len(counts) + 1)), file.name
        assert not [
            output
            for cell in code
            for output in cell["outputs"]
            if output["output_type"] == "error"
        ]
        assert file.stat().st_size < 100_000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_goes_on_with_an_entry_of_a_list_is_indented_by_four(page: Path) -> None:
    # with fewer columns the repository's host takes it for a part of the entry, MkDocs does not
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"\n\n( {1,3}\S.*)", re.sub(r"^```.*?^```", "", text, flags=FENCED)) == []


def test_drawings_are_those_of_their_script(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "docs" / "_build" / "drawings.py"))
    drawings = script["DRAWINGS"]
    assert {file.name for file in (ROOT / "docs" / "drawings").glob("*.svg")} == set(drawings)
    for name, draw in drawings.items():
        text = (ROOT / "docs" / "drawings" / name).read_text(encoding="utf-8")
        assert text == draw(), "run: python docs/_build/drawings.py"
