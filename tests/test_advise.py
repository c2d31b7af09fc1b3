"""`backstop advise`: who can be used, what is asked, what a board says to it, and the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backstop.platform import plugins
from backstop.platform.advice import findings, nearness, situation, words
from backstop.platform.advice.answer import Advice, AdviceSource, make_answer
from backstop.platform.advice.candidates import Means, reason_against, sort_out
from backstop.platform.advice.page import advice_page
from backstop.platform.advice.situation import Situation, read_situation
from backstop.platform.advice.trial import alpha_for, attacks_on, make_trial
from backstop.platform.cli import main
from backstop.platform.params import BadInput
from backstop.platform.results.leaderboard.ranking import build_document
from backstop.platform.specs.part import to_chain
from tests.boards import runs
from tests.browser import needs_browser, open_browser, open_tab

PHONE = 390
ALL = Means(
    kind="image",
    root=50,
    clients_change=True,
    sums_only=False,
    f=2,
    turns=30.0,
    update=0.2,
    parameters=8.0,
)
SAID = Situation(kind="image", clients=50, per_round=10, attackers=10, rounds=20)


def usable(means: Means) -> set[str]:
    return {candidate.name for candidate in sort_out(means)[0]}


# -- who can be used


def test_whoever_has_everything_may_use_everything() -> None:
    chosen, unusable = sort_out(ALL)
    keeping = {"ditto", "fedbn", "fedrep"}  # which are measured by their clients
    assert {item.name for item in unusable} == keeping
    everything = set(plugins.names("defenses")) - {"fedavg", "frozen"}
    assert {item.name for item in chosen} == everything - keeping
    for item in chosen:
        assert to_chain(item.chain, "defense")[0].name == item.name


def test_without_clean_samples_no_defense_that_needs_them() -> None:
    gone = usable(ALL) - usable(ALL._replace(root=0))
    assert gone == {name for name in usable(ALL) if "root" in plugins.defense_facts(name).needs}
    assert {"fltrust", "neural_cleanse"} <= gone
    assert "no" in reason_against("fltrust", ALL._replace(root=0))


def test_clients_that_train_as_they_do() -> None:
    gone = usable(ALL) - usable(ALL._replace(clients_change=False))
    scoring = {"baffle", "crowdguard", "flshield"}
    assert gone == {"fedprox", "flip", "leadfl", "local_dp", "lockdown"} | scoring


def test_under_secure_aggregation_only_sums_are_left() -> None:
    left = usable(ALL._replace(sums_only=True))
    assert {"norm_clip", "weak_dp", "crfl", "fine_pruning", "fedprox"} <= left
    assert left.isdisjoint({"median", "krum", "fltrust", "foolsgold", "trimmed_mean", "flame"})
    # nobody is told to look for clean samples that would not help
    assert "sums only" in reason_against("fltrust", ALL._replace(sums_only=True, root=0))
    assert "clean samples" in reason_against("nad", ALL._replace(sums_only=True, root=0))


def test_nobody_is_followed_who_comes_once() -> None:
    gone = usable(ALL) - usable(ALL._replace(turns=0.5))
    assert gone == {"agsd", "flanders", "fldetector", "foolsgold"}


def test_the_kind_of_data() -> None:
    assert "text" not in reason_against("flip", ALL)
    assert "image" in reason_against("flip", ALL._replace(kind="text"))


def test_what_a_defense_is_told() -> None:
    chains = {item.name: item.chain for item in sort_out(ALL)[0]}
    assert chains["krum"] == "krum(f=2)"
    assert chains["norm_clip"] == "norm_clip(norm=0.2)"
    assert chains["crfl"] == "crfl(norm=8, noise=0.002)"
    assert chains["nnm"] == "nnm(f=2)+trimmed_mean"


def test_only_some_are_asked_about() -> None:
    chosen, unusable = sort_out(ALL, "median, krum")
    assert [item.name for item in chosen] == ["krum", "median"]
    assert unusable[0].reason == "not asked about (only)"
    with pytest.raises(BadInput, match="only: unknown defense 'medain'; did you mean 'median'"):
        sort_out(ALL, "medain")


# -- what is asked


def test_the_example_says_nothing_but_defaults(tmp_path: Path) -> None:
    file = tmp_path / "ours.toml"
    file.write_text(situation.example())
    said = read_situation(str(file), {})
    assert said.data == situation.EXAMPLE_VALUES["data"]
    assert said.data_dir == str(tmp_path)
    spelled = [line.removeprefix("# ") for line in situation.example().splitlines()]
    lines = [line for line in spelled if line.partition(" = ")[0] in situation.questions()]
    assert len(lines) == len(situation.questions())
    own = tuple(situation.EXAMPLE_VALUES)
    file.write_text("\n".join(line for line in lines if not line.startswith(own)))
    with pytest.raises(BadInput, match="neither data nor clients nor sizes"):
        read_situation(str(file), {})
    assert read_situation(str(file), {"clients": "8"}) == Situation(clients=8)


def test_options_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "ours.toml"
    file.write_text("clients = 8\nsecure_aggregation = true\nskew = 'none'\n")
    said = read_situation(str(file), {"clients": "12", "rounds": None})
    assert (said.clients, said.secure_aggregation, said.skew) == (12, True, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clints = 8", "unknown name 'clints'; did you mean 'clients'"),
        ("clients = 'eight'", "clients='eight' is not allowed; clients is an integer"),
        ("clients = 8.5", "clients=8.5 is not allowed"),
        ("clients = 8\nsecure_aggregation = 1", "secure_aggregation=1 is not allowed; .*true or"),
        ("clients = 8\nattackers = 8", "leaves nobody honest; at most 7"),
        ("clients = 8\nper_round = 9", "per_round=9 is more than clients=8"),
        ("clients = 8\naccuracy_to_lose = 2", r"accuracy_to_lose=2.0 is not allowed.*\[0, 1\]"),
        ("sizes = [10, 0]", "sizes='10,0' is not allowed"),
        ("sizes = [10, 20]\nclients = 3", "sizes has 2 of them"),
        ("sizes = [10, 20]\nskew = 0.5", "sizes and skew are both given"),
        ("clients = 8\nskew = 'natural'", "no data is given"),
        ("clients = [8", "is not TOML"),
        ("clients = [8]", r"clients=\[8\] is not allowed"),
        ("kind = 'sound'\nclients = 8", "kind='sound' is not allowed"),
    ],
)
def test_what_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "ours.toml"
    file.write_text(text)
    with pytest.raises(BadInput, match=message):
        read_situation(str(file), {})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.toml"], "nowhere.toml: No such file"),
        ([], "nothing is said of your federation"),
        (["--clients", "8", "--read", "nowhere"], "there is no such file"),
        (["--clints", "8"], "did you mean '--clients'"),
        (["--clients", "8", "--seeds", "0", "--dry-run"], "at least 1 seed"),
    ],
)
def test_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["advise", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


# -- the federation that is tried


def test_a_million_phones_are_stood_for(tmp_path: Path) -> None:
    said = Situation(kind="text", clients=10**6, per_round=1000, attackers=1000, rounds=3)
    trial = make_trial(said, tmp_path, "cpu", quick=True)
    base = trial.base
    assert (base.clients, base.per_round, base.rounds, base.selection) == (100, 20, 1, "random")
    assert trial.means.turns == pytest.approx(0.003)
    assert trial.means.f == 1
    assert any("100 clients stand for 1,000,000" in note for note in trial.notes)
    assert any("one malicious client is 1.0%" in note for note in trial.notes)
    assert "foolsgold" not in usable(trial.means)


def test_sizes_become_a_split(tmp_path: Path) -> None:
    sizes = (400, 200, 100, 100, 50, 50, 40, 30)
    said = Situation(sizes=",".join(map(str, sizes)), rounds=1, server_samples=10**5)
    trial = make_trial(said, tmp_path, "cpu", quick=False)
    assert trial.base.clients == 8
    assert trial.base.alpha == pytest.approx(alpha_for(sizes, 4), abs=1e-3)
    assert max(trial.sizes) > 2 * min(trial.sizes)
    assert trial.base.root_size < 10**4
    assert trial.means.update > 0


# -- what a board says


def board(said: Situation = SAID, **limits: Any) -> Advice:
    """An answer of made-up runs."""
    document = build_document(runs(), "demo")
    evidence = findings.Evidence(document, document["rows"], runs(), "")
    _, unusable = sort_out(ALL)
    found = findings.verdicts(evidence, Situation(**{**vars(said), **limits}), ALL, unusable)
    origin = AdviceSource("board", "backstop advise ours.toml", quick=True, read=False)
    return make_answer(said, evidence, found, origin)


def test_the_short_list_keeps_the_limits() -> None:
    answer = board(accuracy_to_lose=0.05, success_to_bear=0.5)
    listed = answer["short_list"]
    assert 1 <= len(listed) <= 5
    assert [entry["place"] for entry in listed] == list(range(1, len(listed) + 1))
    scores = [entry["score"]["mean"] for entry in listed]
    assert scores == sorted(scores, reverse=True)
    assert all(entry["cost"]["mean"] <= 0.05 for entry in listed)
    reasons = {
        item["name"]: item["reason"] for group in answer["left_out"] for item in group["defenses"]
    }
    assert "more accuracy than the 5.0 points that you can lose" in reasons["krum"]
    shown = {entry["defense"] for entry in listed}
    assert shown.isdisjoint(reasons)
    assert "fedavg" not in shown | set(reasons)


def test_it_says_so_where_nothing_holds() -> None:
    answer = board(accuracy_to_lose=1.0, success_to_bear=0.0)
    assert any(sentence.startswith("Nothing holds") for sentence in answer["verdict"])
    nothing = board(accuracy_to_lose=0.0)
    assert nothing["short_list"] == []
    assert any(sentence.startswith("Nothing fits") for sentence in nothing["verdict"])


def test_it_says_so_where_no_defense_is_needed() -> None:
    answer = board(success_to_bear=1.0)
    assert any("no defense is needed" in sentence for sentence in answer["verdict"])


def test_seconds_of_the_server_are_a_limit() -> None:
    slow = [run._replace(costs={"time/total_aggregate_s": 100.0}) for run in runs()]
    document = build_document(runs(), "demo")
    evidence = findings.Evidence(document, document["rows"], slow, "")
    found = findings.verdicts(evidence, Situation(clients=8, server_seconds=1.0), ALL, [])
    assert not found.short_list
    late = [item for item in found.left_out if "longer than its 1 s a round" in item.reason]
    assert late
    assert {item.figure for item in late} == {"5"}


def test_the_nearest_setting_of_a_published_board() -> None:
    document = build_document(runs(), "demo")
    key = nearness.nearest_setting(document, SAID)
    near = {item.name: item.near for item in nearness.aspects(document["settings"][key], SAID)}
    assert [near["clients"], near["clients in a round"], near["rounds"]] == [True] * 3
    assert not near["data"]
    text = Situation(kind="text", clients=8)
    with pytest.raises(BadInput, match="has no text data, it has digits"):
        nearness.nearest_setting(document, text)


def test_a_published_board_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published = Path(__file__).parents[1] / "docs/results/suite-laptop-1"
    said = ["--kind", "text", "--clients", "40", "--attackers", "8", "--secure-aggregation", "true"]
    arguments = ["advise", *said, "--read", str(published), "--out", str(tmp_path), "--json"]
    assert main(arguments) == 0
    answer = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "advice.json").read_text()) == answer
    assert "another federation" in answer["verdict"][0]
    sums = {"norm_clip", "weak_dp", "sparsefed", "centered_clipping", "crfl"}
    assert {entry["family"] for entry in answer["short_list"]} <= sums
    assert "secure aggregation" in (tmp_path / "advice.md").read_text()
    [unseen] = [line for line in answer["verdict"] if "Secure aggregation" in line]
    [ruled_out] = [group for group in answer["left_out"] if "sums only" in group["reason"]]
    assert f"rules out {len(ruled_out['defenses'])} defenses" in unseen


# -- the page


def test_the_page_escapes_what_it_shows() -> None:
    answer = {**board(), "verdict": ["<script>alert(1)</script>"]}
    assert "<script>" not in advice_page(answer)


def test_every_form_has_the_short_list() -> None:
    answer = board(accuracy_to_lose=0.05, success_to_bear=0.5)
    for text in (advice_page(answer), words.advice_markdown(answer)):
        for entry in answer["short_list"]:
            assert entry["defense"] in text
        assert "not tested" in text.lower()


@needs_browser
@pytest.mark.parametrize("width", [PHONE, 1200])
def test_the_page_in_a_browser(tmp_path: Path, width: int) -> None:
    file = tmp_path / "advice.html"
    file.write_text(advice_page(board(accuracy_to_lose=0.05, success_to_bear=0.5)))
    with open_browser(tmp_path / "profile") as browser:
        tab = open_tab(browser, file, width=width)
        assert tab.value("document.documentElement.scrollWidth") <= width
        assert tab.value("document.querySelectorAll('tbody tr').length") >= 1
        assert tab.complaints() == []
        assert tab.requests() == [file.as_uri()]
        assert tab.pdf().startswith(b"%PDF")


# -- from one end to the other


def test_attacks_suit_their_data() -> None:
    for kind, trigger in (("image", "badnets"), ("table", "feature_value"), ("text", "phrase")):
        assert all(attack.startswith(trigger) for attack in attacks_on(kind))  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_eight_files_become_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clients").mkdir()
    for hospital in range(1, 9):
        lines = [f"{n % 7},{n * hospital % 5},{n % 2}" for n in range(20 * hospital)]
        text = "\n".join(["a,b,outcome", *lines])
        (tmp_path / "clients" / f"hospital_{hospital}.csv").write_text(text)
    (tmp_path / "ours.toml").write_text(
        'data = "table(path=clients/hospital_*.csv, label=outcome)"\ndata_dir = "."\n'
        'rounds = 6\nonly = "median,krum"\naccuracy_to_lose = 1.0\n'
    )
    arguments = ["advise", "ours.toml", "--quick", "--out", "page", "--json"]
    assert main(arguments) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["federation"]["clients"] == 8
    assert first["evidence"]["missing"] == 0
    assert {"fedavg", "frozen"} == {entry["defense"] for entry in first["references"]}
    assert main(arguments) == 0  # nothing is run again
    captured = capsys.readouterr()
    again = json.loads(captured.out)
    for entry in (*first["short_list"], *again["short_list"]):
        assert entry.pop("seconds") > 0
    assert first["short_list"] == again["short_list"]
    assert (tmp_path / "page" / "advice.html").is_file()
