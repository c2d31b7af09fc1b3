"use strict";
// Sorts, filters and opens the rows of the tables in this page, and changes nothing else: without
// it all of this stands one below the other. It asks for nothing and keeps nothing.
(() => {
  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const controls = one("#controls");
  const rankings = all("table.ranking"); // the whole one first, then one for each setting
  const followers = all("table.follows"); // in the order of the ranking that is shown
  const boards = all("section.board:not(.aside)");
  const asides = all(".aside table.ranking"); // boards of their own, shown whatever the setting
  const chosen = name => controls.elements[name]?.value ?? "";

  // A defense has the same number in every table, and one place with all that stands behind it.
  const rowsOf = table => [...table.tBodies[0].rows].filter(row => row.dataset.row !== undefined);
  const detailOf = row => one(`#defense-${row.dataset.row}`);
  const shownBoard = () => boards.find(board => !board.hidden);
  const button = (content, action) => {
    const made = document.createElement("button");
    made.type = "button";
    made.append(...content);
    made.addEventListener("click", action);
    return made;
  };

  // -- opening a row

  const homes = new Map(all(".detail").map(detail => [detail, detail.parentElement]));
  const belowOf = row => {
    const next = row.nextElementSibling;
    return next?.matches(".opened") ? next : null;
  };
  const mark = (row, expanded) => one("button", row).setAttribute("aria-expanded", expanded);
  const shownCells = row => [...row.cells].filter(cell => !cell.hidden).length;

  const close = row => {
    const below = belowOf(row);
    if (!below) return;
    const detail = one(".detail", below);
    homes.get(detail).append(detail);
    below.remove();
    mark(row, false);
  };

  const open = row => {
    const detail = detailOf(row);
    const elsewhere = detail.closest(".opened");
    if (elsewhere) close(elsewhere.previousElementSibling);
    const below = document.createElement("tr");
    below.className = "opened";
    const cell = below.insertCell();
    cell.colSpan = shownCells(row);
    cell.append(detail);
    row.after(below);
    mark(row, true);
  };

  const toggle = row => (belowOf(row) ? close(row) : open(row));

  const makeOpener = row => {
    const link = one("a.open", row);
    const opener = button(link.childNodes, () => toggle(row));
    opener.className = "open";
    opener.setAttribute("aria-controls", `defense-${row.dataset.row}`);
    link.replaceWith(opener);
    mark(row, false);
    row.addEventListener("click", event => {
      const selecting = String(getSelection()) !== "";
      if (!event.target.closest("a, button") && !selecting) toggle(row);
    });
  };

  const openAddressed = () => {
    const detail = one(location.hash.match(/^#defense-\d+$/)?.[0] ?? ":not(*)");
    if (!detail) return;
    const tables = [one("table.ranking", shownBoard()), ...asides];
    const row = tables.flatMap(rowsOf).find(item => detailOf(item) === detail);
    if (!row) return;
    if (!belowOf(row)) open(row);
    row.scrollIntoView();
  };

  // -- sorting

  const sortKey = cell => {
    const { value } = cell.dataset;
    if (value !== undefined) return value === "" ? null : Number(value);
    const text = cell.textContent.trim();
    return text === "–" || text === "" ? null : text;
  };

  const difference = (left, right) =>
    typeof left === "number" ? left - right : left.localeCompare(right, "en");

  const order = (table, rows) => {
    for (const row of rows) {
      const below = belowOf(row);
      table.tBodies[0].append(row, ...(below ? [below] : []));
    }
    for (const head of table.tHead.rows[0].cells) head.removeAttribute("aria-sort");
    if (!asides.includes(table)) follow(table);
  };

  const placed = (left, right) => left.dataset.place - right.dataset.place;
  const unsort = table => order(table, rowsOf(table).sort(placed));

  // What a row lacks comes last in either direction; among equals the ranking's order stays.
  const sort = (table, head, direction) => {
    const sign = direction === "ascending" ? 1 : -1;
    const rows = rowsOf(table).map(row => ({ row, key: sortKey(row.cells[head.cellIndex]) }));
    rows.sort((left, right) => {
      const lacking = (left.key === null) - (right.key === null);
      if (lacking) return lacking;
      const between = left.key === null ? 0 : sign * difference(left.key, right.key);
      return between || placed(left.row, right.row);
    });
    order(table, rows.map(({ row }) => row));
    head.setAttribute("aria-sort", direction);
  };

  const follow = table => {
    const numbers = rowsOf(table).map(row => row.dataset.row);
    for (const follower of followers) {
      const rows = new Map(rowsOf(follower).map(row => [row.dataset.row, row]));
      const listed = numbers.filter(number => rows.has(number)).map(number => rows.get(number));
      follower.tBodies[0].prepend(...listed);
    }
  };

  const makeSortable = table => {
    rowsOf(table).forEach((row, place) => (row.dataset.place = place));
    for (const head of table.tHead.rows[0].cells) {
      const sorter = button(head.childNodes, () => {
        const opposite = { ascending: "descending", descending: "ascending" };
        sort(table, head, opposite[head.getAttribute("aria-sort")] ?? head.dataset.first);
      });
      head.append(sorter);
    }
  };

  // -- filtering

  const CELL_FILTERS = ["setting", "attack", "knows"];
  const filtersCells = () => CELL_FILTERS.some(chosen);
  const filtersAttacks = () => chosen("attack") || chosen("knows");
  const cellsOf = row => all("[data-attack]", detailOf(row)); // and what else there is of a cell
  const isChosen = ({ dataset }) =>
    CELL_FILTERS.every(name => !chosen(name) || dataset[name] === chosen(name));

  // A chosen cell that enters no mean counts where its attack is asked for.
  const chosenRate = row => {
    const counted = cellsOf(row)
      .filter(isChosen)
      .filter(({ dataset }) => dataset.success && (dataset.counts || chosen("attack")))
      .map(({ dataset }) => Number(dataset.success));
    if (!counted.length) return null;
    if (chosen("measure") === "worst") return Math.max(...counted);
    return counted.reduce((sum, rate) => sum + rate) / counted.length;
  };

  const texts = new Map(); // of the rows and of the data sheets behind them
  const textOf = row => {
    if (!texts.has(row)) {
      const sheets = all(".sheet", detailOf(row)).map(sheet => sheet.textContent);
      texts.set(row, [row.textContent, ...sheets].join(" ").toLowerCase());
    }
    return texts.get(row);
  };

  const fits = row => {
    const needs = row.dataset.needs.split("\n").filter(Boolean);
    const [wish, need] = [chosen("needs").slice(0, 1), chosen("needs").slice(1)];
    const words = chosen("text").toLowerCase().split(/\s+/);
    return words.every(word => textOf(row).includes(word))
      && (wish !== "0" || !needs.length)
      && (wish !== "+" || needs.includes(need))
      && (wish !== "-" || !needs.includes(need))
      && (!chosen("year") || Number(row.dataset.year) >= Number(chosen("year")))
      && (!filtersCells() || cellsOf(row).some(isChosen));
  };

  const showChosenRate = row => {
    const cell = one("td.chosen", row);
    if (!cell) return;
    const rate = filtersAttacks() ? chosenRate(row) : null;
    cell.dataset.value = rate ?? "";
    cell.textContent = rate === null ? "–" : (100 * rate).toFixed(1);
  };

  // -- weighing the settings

  const weights = all("[name=weight]", controls);
  const weightOf = field => Math.max(0, field.valueAsNumber || 0);
  const isWeighed = () => new Set(weights.map(weightOf)).size > 1;
  const linesBySetting = new Map(boards.map(({ dataset: { setting } }, index) =>
    [setting, new Map(rowsOf(rankings[index]).map(row => [row.dataset.row, row]))]));

  // What the score takes off are means over the settings; a setting that counts and in which a
  // defense has no score leaves it without one.
  const weighedScore = ({ dataset }) => {
    const total = weights.reduce((sum, field) => sum + weightOf(field), 0);
    const means = [0, 0, 0];
    for (const field of weights.filter(weightOf)) {
      const losses = linesBySetting.get(field.dataset.setting).get(dataset.row)?.dataset.losses;
      if (!losses) return null;
      const share = weightOf(field) / total;
      losses.split(" ").forEach((loss, index) => (means[index] += share * Number(loss)));
    }
    const [excess, ...costs] = means;
    return 1 - excess - Math.max(...costs);
  };

  const showWeighedScore = row => {
    const cell = one("td.weighed", row);
    if (!cell) return;
    const score = isWeighed() ? weighedScore(row) : null;
    cell.dataset.value = score ?? "";
    cell.textContent = score === null ? "–" : (100 * score).toFixed(1);
  };

  const showBoard = () => {
    const ofSetting = boards.find(board => board.dataset.setting === chosen("setting"));
    for (const board of boards) board.hidden = board !== (ofSetting ?? boards[0]);
  };

  const showMeasure = () => {
    const measure = chosen("measure");
    for (const item of all("[data-measure]")) {
      item.hidden = Boolean(measure) && item.dataset.measure !== measure;
    }
    for (const item of all(".chosen")) item.hidden = !filtersAttacks();
    for (const item of all(".weighed")) item.hidden = !isWeighed();
    const name = measure === "worst" ? "highest" : "mean";
    for (const label of all("th.chosen button")) {
      label.textContent = `${name} success, chosen cells`;
    }
  };

  const hideLine = (head, hidden) => {
    const column = [...head.closest("table").rows].map(row => row.cells[head.cellIndex]);
    const line = head.scope === "row" ? [head.parentElement] : column;
    for (const item of line) item.hidden = hidden;
  };

  const filterMatrix = kept => {
    const attack = chosen("attack");
    for (const head of all("table.matrix th[data-row]")) {
      hideLine(head, !kept.has(head.dataset.row));
    }
    for (const head of all("table.matrix th[data-attack]")) {
      hideLine(head, attack !== "" && head.dataset.attack !== attack);
    }
  };

  const filter = row => {
    row.hidden = !fits(row);
    if (row.hidden) close(row);
    showChosenRate(row);
    showWeighedScore(row);
    for (const cell of cellsOf(row)) cell.hidden = filtersCells() && !isChosen(cell);
    const below = belowOf(row);
    if (below) below.cells[0].colSpan = shownCells(row);
  };

  const apply = () => {
    showBoard();
    showMeasure();
    const table = one("table.ranking", shownBoard());
    const rows = rowsOf(table);
    [...rows, ...asides.flatMap(rowsOf)].forEach(filter);
    const kept = new Set(rows.filter(row => !row.hidden).map(row => row.dataset.row));
    for (const row of followers.flatMap(rowsOf)) row.hidden = !kept.has(row.dataset.row);
    filterMatrix(kept);
    follow(table);
    one("#count").textContent = `${kept.size} of ${rows.length} rows`;
  };

  // Weights order the whole board by its weighed score, else a measure by its first column.
  const orderByChoice = () => {
    const table = one("table.ranking", shownBoard());
    const weighed = one("th.weighed:not([hidden])", table.tHead);
    const head = chosen("measure") && one(`th[data-measure="${chosen("measure")}"]`, table.tHead);
    if (weighed) sort(table, weighed, "descending");
    else if (head) sort(table, head, "ascending");
    else unsort(table);
  };

  if (!rankings.flatMap(rowsOf).length) return;
  document.documentElement.classList.add("live");
  controls.hidden = false;
  rankings.forEach(makeSortable);
  rankings.flatMap(rowsOf).forEach(makeOpener);
  controls.addEventListener("input", event => {
    apply();
    if (["measure", "weight"].includes(event.target.name)) orderByChoice();
  });
  controls.addEventListener("submit", event => event.preventDefault());
  one("#all-rows").addEventListener("click", () => {
    controls.reset();
    apply();
    orderByChoice();
  });
  addEventListener("hashchange", openAddressed);
  apply();
  openAddressed();
})();
