"""What a row of the page opens, and what it can be filtered by."""

from __future__ import annotations

import re
import shlex

import pytest

from backstop.platform import cli, plugins
from backstop.platform.commands import run as run_command
from backstop.platform.contract import Spec
from backstop.platform.results.leaderboard import ranking
from backstop.platform.results.leaderboard.sheets import (
    data_sheet,
    data_sheets,
    newest_year,
    paper_year,
)
from backstop.platform.results.report import measures, page
from backstop.platform.results.report.attack_stages import PICTURES, attack_stages, trigger_picture
from backstop.platform.results.report.choices import choices
from backstop.platform.results.report.details import MOST_RUNS, CellLine, Detail, details
from backstop.platform.results.tables.columns import ranked_rows
from backstop.platform.results.tracking.runs import Run
from backstop.platform.seeds import stream
from backstop.platform.specs.part import parse_chain
from backstop.platform.specs.spec import spec_id, spec_to_json
from tests.boards import BASE, noise, run, runs

SUCCESS = {"clean_accuracy": 0.9, "attack_success_rate": 0.5}
CHAINS = {
    "phrase": r"phrase(words='it\'s; a \"b\" $c')+model_replacement(strength=1.5)",
    "badnets": "badnets(size=2, target=1)+pgd",
}


def opened(given: list[Run], store_uri: str = "") -> list[Detail]:
    document = ranking.build_document(given, "demo")
    return details(document, ranked_rows(document), given, store_uri)


def cell_lines(listed: list[Detail]) -> list[CellLine]:
    return [line for detail in listed for line in detail.cells]


@pytest.mark.parametrize("attack", CHAINS.values(), ids=CHAINS)
def test_a_cells_command_runs_the_same_spec(attack: str) -> None:
    """As a shell hands it to the command line, quotes and all."""
    dataset, model = "digits", "mlp"
    if attack.startswith("phrase"):
        dataset, model = "topics", "bag_of_words"
    spec = Spec(
        dataset=parse_chain(dataset)[0],
        model=parse_chain(model)[0],
        attack=tuple(parse_chain(attack)),
        defense=tuple(parse_chain("norm_clip(norm=0.5)+median")),
        alpha=None,
        attack_stop=7,
        precision="bfloat16",
        seed=3,
    ).resolved
    base = run("badnets", "fedavg", 3, SUCCESS)
    (line,) = cell_lines(opened([base._replace(id=spec_id(spec), spec=spec_to_json(spec))]))
    program, *words = shlex.split(line.command)
    assert program == "backstop"
    options = cli.parser().parse_args(words)
    assert spec_id(run_command._requested_spec(options)) == spec_id(spec)
    assert line.runs[0].id == spec_id(spec)


def test_a_spec_that_cannot_be_read_here_has_no_command() -> None:
    item = run("badnets", "fedavg", 0, SUCCESS)
    (line,) = cell_lines(opened([item._replace(spec={**item.spec, "later_field": 1})]))
    assert line.command == ""
    assert line.runs[0].seed == 0


@pytest.mark.parametrize(
    ("uri", "link"),
    [
        ("http://me:secret@host:5000", "http://host:5000/#/runs/"),
        ("https://host/mlflow/", "https://host/mlflow/#/runs/"),
        ("sqlite:////data/mlflow.db", ""),
        ("postgresql://me:secret@host/runs", ""),
    ],
)
def test_runs_of_a_server_are_linked_to_and_no_password_is_told(uri: str, link: str) -> None:
    given = [run("badnets", defense, 0, SUCCESS) for defense in ("fedavg", "median")]
    document = ranking.build_document(given, "demo")
    text = page.page(document, given, uri)
    assert "secret" not in text
    for item in given:
        assert (f'href="{link}{item.run_id}"' in text) is bool(link)
        assert item.run_id in text
    assert "mlflow-" not in page.page(document, [])  # a page made from the file alone knows none


def test_a_cell_of_many_seeds_names_the_first_and_says_how_many_there_are_more() -> None:
    given = [run("badnets", "fedavg", seed, SUCCESS) for seed in range(MOST_RUNS + 3)]
    (line,) = cell_lines(opened(given))
    assert [item.seed for item in line.runs] == list(range(MOST_RUNS))
    assert line.more_runs == 3
    assert "and 3 more" in page.page(ranking.build_document(given, "demo"), given)


def test_telemetry_is_the_mean_over_a_cells_runs() -> None:
    given = [
        run("badnets", "fedavg", seed, {**SUCCESS, "kept_weight_benign": kept, "masked/x": 1.0})
        for seed, kept in enumerate((0.1, 0.2, 0.6))
    ]
    (detail,) = opened(given)
    assert detail.telemetry == ["kept_weight_benign"]
    kept = detail.cells[0].telemetry["kept_weight_benign"]
    assert kept == pytest.approx(0.3)
    (backwards,) = opened(given[::-1])
    assert backwards.cells[0].telemetry["kept_weight_benign"] == kept


def test_lines_by_round_are_means_over_seeds() -> None:
    given = [
        run("badnets", "fedavg", seed, SUCCESS)._replace(
            curves={
                "round/attack_success_rate": [(0, 0.0), (1, rate), (2, 1.0)],
                "round/clean_accuracy": [(0, 0.5), (2, 0.5)],
            }
        )
        for seed, rate in enumerate((0.25, 0.75))
    ]
    (line,) = cell_lines(opened(given))
    assert line.sparks == {"accuracy": "0,12 100,12", "success": "0,24 50,12 100,0"}
    (bare,) = cell_lines(opened([run("badnets", "fedavg", 0, SUCCESS)]))
    assert bare.sparks == {}


def test_a_row_says_why_it_has_no_rank() -> None:
    given = runs(1)
    document = ranking.build_document(given, "demo")
    text = page.page(document, given)
    unranked = [row for row in document["rows"] if row["unranked"]]
    assert unranked
    assert text.count("no rank: ") == len(unranked)


def test_a_dormant_run_is_no_run_of_the_attack_and_stands_for_the_one_without() -> None:
    attacked = run("badnets", "fedavg", 0, SUCCESS)
    dormant = run("badnets", "fedavg", 0, {**SUCCESS, "trigger_effect": 0.1}, dormant=True)
    with_attack, without = cell_lines(opened([attacked, dormant]))
    assert [item.id for item in with_attack.runs] == [attacked.id]
    assert [item.id for item in without.runs] == [dormant.id]
    assert "--dormant true" in without.command  # as it was run
    assert without.telemetry == {}
    clean = run("none", "fedavg", 0, {"clean_accuracy": 0.9})
    _, without = cell_lines(opened([attacked, dormant, clean]))
    assert [item.id for item in without.runs] == [clean.id]


def test_what_a_search_has_chosen_stands_among_the_cells_and_enters_no_mean() -> None:
    given = runs(1)
    sought = "badnets(size=9, target=0)+pgd"
    trigger = sought.partition("+")[0]
    natural = {**SUCCESS, "attack_success_rate": 0.1}
    confirming = [run(sought, name, 5, SUCCESS) for name in ("fedavg", "median")]
    twins = [run(trigger, name, 5, natural, dormant=True) for name in ("fedavg", "median")]
    winner = {
        "side": "attack",
        "ids": [confirming[1].id],
        "trials": 30,
        "seeds": 1,
        "objective": "worst",
    }
    document = ranking.build_document([*given, *confirming, *twins], "demo", searched=[winner])
    text = page.page(document, given)
    rows = re.findall(rf'<tr data-setting[^>]*data-attack="{re.escape(sought)}"[^>]*>', text)
    assert rows
    assert all('data-counts=""' in row for row in rows if "data-counts" in row)
    assert ">chosen by a search<" in text
    assert ">searched</th>" in text  # the column of the ranking


# -- data sheets


@pytest.mark.parametrize("name", plugins.names("defenses"))
def test_every_defense_that_has_a_paper_has_its_year(name: str) -> None:
    found = data_sheet("defenses", name)
    assert found is not None
    of_ours = plugins.describe("defenses", name).source.startswith("of this project")
    assert (found.year is None) is of_ours
    assert found.year is None or 1980 < found.year < 2100


def test_years() -> None:
    assert paper_year('A. Author, "In 1984 words", arXiv 1912.11464, ICML 2019.') == 1984
    assert paper_year("A. Author, 2019 (arXiv 1911.07963).") == 2019
    assert paper_year("arXiv 1911.07963.") is None
    assert paper_year("") is None
    listed = data_sheets("defenses", ["invariant", "krum", "krum", "no_such_defense"])
    assert [item.name for item in listed] == ["invariant", "krum"]
    assert newest_year(listed) == 2024
    assert newest_year([]) is None


def test_a_defense_that_is_not_installed_has_a_row_without_a_sheet() -> None:
    given = [run("badnets", defense, 0, SUCCESS) for defense in ("fedavg", "gone(x=1)")]
    by_defense = {detail.row.fields["defense"]: detail for detail in opened(given)}
    assert by_defense["gone(x=1)"].sheets == []
    assert by_defense["gone(x=1)"].year is None
    assert by_defense["fedavg"].year == 2017


def test_the_stages_of_the_attacks_are_told_and_shown() -> None:
    given = [
        run(attack, "fedavg", 0, SUCCESS)
        for attack in ("badnets+model_replacement", "badnets(size=2)", "gone", "none")
    ]
    by_name = {item.name: item for item in attack_stages(ranking.build_document(given, "demo"))}
    assert list(by_name) == ["badnets", "gone", "model_replacement"]
    assert by_name["badnets"].chains == ["badnets(size=2)", "badnets+model_replacement"]
    assert by_name["badnets"].picture.startswith("data:image/png;base64,")
    assert by_name["model_replacement"].picture == ""
    told = by_name["model_replacement"].sheet
    assert told is not None
    assert told.summary.startswith("Model replacement")
    assert by_name["gone"].sheet is None
    assert trigger_picture("../triggers/badnets") == ""  # a name is no path


def test_every_picture_is_of_a_trigger_that_there_is() -> None:
    drawn = {file.stem for file in PICTURES.glob("*.png")}
    triggers = {name for name in plugins.names("attacks") if plugins.attack_facts(name).trigger}
    assert drawn
    assert drawn <= triggers


# -- choices and measures


def test_what_can_be_chosen() -> None:
    given = runs(1)
    document = ranking.build_document(given, "demo")
    offered = choices(document, opened(given))
    assert offered.settings == []
    assert [choice.label for choice in offered.attacks] == [
        "badnets",
        "badnets+model_replacement",
        "edge_case+model_replacement",
    ]
    assert [choice.value for choice in offered.needs] == ["assumed f"]
    assert [choice.value for choice in offered.knows] == ["own data"]
    assert [choice.value for choice in offered.years][-1] == "2024"
    text = page.page(document, given)
    assert 'name="attack"' in text
    assert "Defense needs" in text
    assert 'name="setting"' not in text  # one is no choice
    assert 'name="knows"' not in text


def test_settings_are_told_by_what_they_have_of_their_own() -> None:
    given = []
    for rounds in (7, 9):
        base = BASE.replace(rounds=rounds)
        given += [run("badnets", name, 0, SUCCESS, base=base) for name in ("fedavg", "median")]
    document = ranking.build_document(given, "demo")
    offered = choices(document, opened(given)).settings
    assert [choice.label for choice in offered] == [board["title"] for board in document["boards"]]
    assert len({choice.label for choice in offered}) == 2
    assert 'name="setting"' in page.page(document, given)


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    points = [(noise(1.0, "x", i), noise(1.0, "y", i)) for i in range(60)]
    kept = measures.front(points)
    beaten = {
        point
        for point in points
        for other in points
        if other != point and other[0] <= point[0] and other[1] <= point[1]
    }
    assert set(kept) == set(points) - beaten
    assert measures.front([]) == []


def test_fifty_defenses_by_twenty_attacks_are_a_page_of_a_few_megabytes() -> None:
    defenses = ["fedavg", *(f"norm_clip(norm={norm})+median" for norm in range(1, 50))]
    attacks = [f"badnets(size={size}, target=0)+model_replacement" for size in range(1, 21)]
    given = []
    for attack in attacks:
        for defense in defenses:
            rate = stream(0, attack, defense) % 1000 / 1000
            metrics = {"clean_accuracy": 0.9, "attack_success_rate": rate, "train_loss": 0.3}
            given += [run(attack, defense, seed, metrics) for seed in range(3)]
    text = page.page(ranking.build_document(given, "large"), given, "http://tracking:5000")
    assert text.count('<tr data-setting="') == 2 * 50 * 20  # cells and their telemetry
    assert len(text.encode()) < 5e6
