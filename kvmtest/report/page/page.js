// SPDX-License-Identifier: GPL-2.0-only
// The matrix of results: filter, rows made on demand, keys, details of a cell.
const grid = $("grid"), head = $("head"), body = $("body"), panel = $("detail"), search = $("search");
// Text goes in as text, never as markup.
function el(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// A view of 0 or more is one run; DIFFERING leaves out the ids in which all runs are the same and good, if nothing is searched for.
const ALL = -1, DIFFERING = -2;
const state = { on: VERDICTS.map(() => true), view: runs.length > 1 ? DIFFERING : 0, finding: -1, place: null, words: [] };
const worst = new Int8Array(ids.length * runs.length), count = new Int32Array(ids.length * runs.length), each = new Int32Array(runs.length);
let rows = [], columns = [], active = [0, 0], opened = null, rowHeight = 24, made = new Map();
const slotAt = (row, column) => rows[row].slots[column];
// A choice on the map is one group, in one state of the target.
const inPlace = (group, of) => !state.place || (group === state.place.group && states[of] === state.place.doing);

function filter() {
  const words = state.words = split(search.value), all = (1 << words.length) - 1;
  const bits = words.length ? matches(words) : null, event = $("event").value, finding = findings[state.finding];
  const inGroup = groups.map(([of, , view]) => (!event || of === event) && (!finding || (of === finding.event && finding.views.includes(view))));
  const counts = new Int32Array(VERDICTS.length);
  worst.fill(NONE);
  count.fill(0);
  each.fill(0);
  runs.forEach((run, r) => {
    if (state.view >= 0 && r !== state.view) return;
    for (const seen of run.seen) {
      const group = groupOf[seen], ofCase = bits ? bits.cases[caseOf[seen]] : 0;
      if (!inGroup[group] || !inPlace(group, caseOf[seen])) continue;
      for (const record of looks[lookOf[seen]]) {
        if (finding && !finding.records.has(record)) continue;
        const verdict = verdictOf[record], id = idAt[group * items.length + itemOf[record]];
        if (bits && (ofCase | bits.records[record] | bits.ids[id]) !== all) continue;
        counts[verdict]++;
        if (!state.on[verdict]) continue;
        const slot = r * ids.length + id;
        if (verdict < worst[slot]) worst[slot] = verdict;
        count[slot]++;
        each[r]++;
      }
    }
  });
  for (const chip of document.querySelectorAll(".chip")) chip.querySelector(".count").textContent = number(counts[chip.dataset.verdict]);
  const shown = each.reduce((sum, times) => sum + times, 0);
  $("finding").hidden = !finding && !state.place;
  $("finding-kind").textContent = finding ? "finding" : "cases of";
  $("finding-title").textContent = (finding || state.place || { title: "" }).title;
  arrange();
  const what = (state.view < 0 ? "id" : "item") + (rows.length === 1 ? "" : "s");
  $("count").textContent = `${number(shown)} of ${number(total)} results, in ${number(rows.length)} ${what}`;
  $("count").dataset.shown = shown;
}

// Rows and columns: ids by the runs that have results to show, or the items of one run by event, trigger and view.
function arrange() {
  const found = new Map();
  if (state.view < 0) {
    const present = runs.map((_, r) => r).filter(r => each[r]);
    columns = present.map(r => ({ name: runs[r].name, event: "" }));
    ids.forEach(([, item], id) => {
      const slots = present.map(r => r * ids.length + id), seen = new Set(slots.map(slot => worst[slot]));
      seen.delete(NONE);
      if (seen.size > 1 || (seen.size && (state.view === ALL || state.words.length || Math.min(...seen) < SKIP_OVER))) found.set(id, { name: names[id], item, slots });
    });
  } else {
    const used = new Set(), from = state.view * ids.length;
    ids.forEach(([group], id) => { if (worst[from + id] !== NONE) used.add(group); });
    // Those of one event side by side, RESET first, then of one trigger, then of one view, in the order in which they came.
    const came = [data.events, ...[1, 2].map(part => [...new Set(groups.map(group => group[part]))])];
    const places = groups.map(group => group.map((name, part) => came[part].indexOf(name)));
    const order = [...used].sort((a, b) => places[a].reduce((sign, place, part) => sign || place - places[b][part], 0));
    const place = new Map(order.map((group, i) => [group, i]));
    columns = order.map(group => ({ event: groups[group][0], name: groups[group][1], view: groups[group][2] }));
    ids.forEach(([group, item], id) => {
      if (worst[from + id] === NONE) return;
      if (!found.has(item)) found.set(item, { name: items[item], item, slots: new Array(columns.length).fill(-1) });
      found.get(item).slots[place.get(group)] = from + id;
    });
  }
  rows = [...found.values()];
  const order = $("order").value;
  if (order === "name") rows.sort((a, b) => (a.name < b.name ? -1 : 1));
  if (order === "worst") {
    for (const row of rows) row.rank = rank(row);
    rows.sort((a, b) => a.rank - b.rank);
  }
  active = [Math.min(active[0], Math.max(rows.length - 1, 0)), Math.min(active[1], Math.max(columns.length - 1, 0))];
  rowHeight = parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row"));
  drawHead();
  body.style.height = `${Math.max(rows.length, 1) * rowHeight}px`;
  redraw();
}
// The item that was searched for; the worst verdict; among equals the one that most columns have, and where runs differ before where they agree.
function rank(row) {
  let least = NONE, times = 0, differ = 0, one = -2;
  for (const slot of row.slots) {
    const verdict = slot < 0 ? NONE : worst[slot];
    if (verdict < least) [least, times] = [verdict, 0];
    if (verdict === least) times++;
    if (one !== -2 && verdict !== one) differ = 1;
    one = verdict;
  }
  return (state.words.includes(items[row.item]) ? 0 : 1e9) + least * 1e6 - times - (state.view < 0 && least < SKIP_OVER ? differ * 1e5 : 0);
}

function drawHead() {
  grid.classList.toggle("wide", state.view < 0);
  grid.setAttribute("aria-rowcount", rows.length + 1);
  grid.setAttribute("aria-colcount", columns.length + 1);
  const lines = [];
  if (state.view >= 0) {
    const events = el("div", { class: "row events", role: "presentation" }, el("div", { class: "corner" }));
    for (let i = 0, n; i < columns.length; i += n) {
      for (n = 1; i + n < columns.length && columns[i + n].event === columns[i].event; n++);
      const made = el("div", { class: "event" }, columns[i].event);
      made.style.width = `calc(var(--cell) * ${n})`;
      events.append(made);
    }
    lines.push(events);
  }
  const names = el("div", { class: "row", role: "row", "aria-rowindex": 1 });
  names.append(el("div", { class: "corner", role: "columnheader", "aria-colindex": 1, "aria-label": state.view < 0 ? "id" : "item" }));
  columns.forEach((column, i) => {
    const label = column.view ? `${column.event} ${column.name} ${column.view}` : column.name;
    const made = el("div", { class: "column", role: "columnheader", "aria-colindex": i + 2, title: label, "aria-label": label }, column.name);
    if (column.view) made.append(el("i", {}, column.view));
    if (state.view >= 0 && i && columns[i - 1].event !== column.event) made.classList.add("first");
    names.append(made);
  });
  lines.push(names);
  head.replaceChildren(...lines);
}

function redraw() {
  made = new Map();
  body.replaceChildren();
  draw();
}
// The rows in sight, and a few more either way.
function draw() {
  if (!rows.length) {
    body.replaceChildren(el("p", { class: "quiet", style: null }, "Nothing matches."));
    grid.removeAttribute("aria-activedescendant");
    return;
  }
  const from = Math.max(0, Math.floor((grid.scrollTop - head.offsetHeight) / rowHeight) - EXTRA_ROWS);
  const to = Math.min(rows.length, Math.ceil((grid.scrollTop + grid.clientHeight) / rowHeight) + EXTRA_ROWS);
  for (const [row, element] of made) {
    if (row < from || row >= to) {
      element.remove();
      made.delete(row);
    }
  }
  for (let row = from; row < to; row++) {
    if (made.has(row)) continue;
    const element = drawRow(row);
    made.set(row, element);
    body.append(element);
  }
  mark();
}
function drawRow(r) {
  const row = rows[r], line = el("div", { class: "row", role: "row", "aria-rowindex": r + 2 });
  line.style.top = `${r * rowHeight}px`;
  line.append(el("div", { class: "name", role: "rowheader", "aria-colindex": 1, title: row.name }, el("span", {}, row.name)));
  row.slots.forEach((slot, c) => {
    const verdict = slot < 0 ? NONE : worst[slot];
    const cell = el("div", { role: "gridcell", id: `c${r}-${c}`, "aria-colindex": c + 2, "data-row": r, "data-column": c });
    if (verdict === NONE) {
      cell.className = "cell blank";
      cell.setAttribute("aria-label", "none");
    } else {
      const text = `${VERDICTS[verdict]}, ${count[slot]} ${count[slot] === 1 ? "result" : "results"}`;
      cell.className = `cell ${VERDICTS[verdict]}`;
      cell.setAttribute("aria-label", text);
      cell.append(el("b", { "aria-hidden": "true" }, data.marks[verdict]));
      if (state.view < 0) cell.append(VERDICTS[verdict], el("small", {}, `${number(count[slot])}\u00d7`));
    }
    if (state.view >= 0 && c && columns[c - 1].event !== columns[c].event) cell.classList.add("first");
    if (slot >= 0 && slot === opened) cell.classList.add("open");
    line.append(cell);
  });
  return line;
}
function mark() {
  for (const old of body.querySelectorAll(".active")) old.classList.remove("active");
  const cell = $(`c${active[0]}-${active[1]}`);
  if (!cell) return grid.removeAttribute("aria-activedescendant");
  cell.classList.add("active");
  grid.setAttribute("aria-activedescendant", cell.id);
}
function move(row, column) {
  if (!rows.length) return;
  active = [Math.max(0, Math.min(rows.length - 1, row)), Math.max(0, Math.min(columns.length - 1, column))];
  const top = active[0] * rowHeight, above = head.offsetHeight;
  if (top < grid.scrollTop) grid.scrollTop = top;
  if (top + rowHeight > grid.scrollTop + grid.clientHeight - above) grid.scrollTop = top + rowHeight + above - grid.clientHeight;
  draw();
  const cell = $(`c${active[0]}-${active[1]}`), side = body.querySelector(".name").offsetWidth;
  if (cell.offsetLeft - side < grid.scrollLeft) grid.scrollLeft = cell.offsetLeft - side;
  if (cell.offsetLeft + cell.offsetWidth > grid.scrollLeft + grid.clientWidth) grid.scrollLeft = cell.offsetLeft + cell.offsetWidth - grid.clientWidth;
}
// Row by row to the next cell that needs attention, and around.
function seek(step) {
  const width = columns.length, cells = rows.length * width;
  for (let i = 1, at = active[0] * width + active[1]; i <= cells; i++) {
    at = (at + step + cells) % cells;
    const slot = slotAt(Math.floor(at / width), at % width);
    if (slot >= 0 && worst[slot] < SKIP_OVER) {
      move(Math.floor(at / width), at % width);
      if (!panel.hidden) show();
      return;
    }
  }
}

function show(focus) {
  if (!rows.length) return;
  const slot = slotAt(...active);
  if (slot < 0 || worst[slot] === NONE) return;
  opened = slot;
  for (const old of body.querySelectorAll(".open")) old.classList.remove("open");
  $(`c${active[0]}-${active[1]}`).classList.add("open");
  const run = runs[Math.floor(slot / ids.length)], id = names[slot % ids.length], [group, item] = ids[slot % ids.length];
  const byRecord = new Map();
  for (const seen of run.seen) {
    if (groupOf[seen] !== group || !inPlace(group, caseOf[seen])) continue;
    for (const record of looks[lookOf[seen]]) {
      if (itemOf[record] !== item) continue;
      if (!byRecord.has(record)) byRecord.set(record, []);
      byRecord.get(record).push(cases[caseOf[seen]]);
    }
  }
  const found = [...byRecord].sort((a, b) => verdictOf[a[0]] - verdictOf[b[0]]);
  const close = el("button", { type: "button" }, "Close");
  close.addEventListener("click", back);
  const articles = found.map(([record, of]) => article(records[record], of, causes(record, ...groups[group])));
  const rest = articles.splice(SHOWN_DETAILS), more = [];
  if (rest.length) {
    const button = el("button", { type: "button" }, `Show ${rest.length} more ${rest.length === 1 ? "set" : "sets"} of values`);
    button.addEventListener("click", () => button.replaceWith(...rest));
    more.push(button);
  }
  const where = runs.length > 1 ? [pair("run", run.name)] : [];
  panel.replaceChildren(
    el("header", {}, el("h3", {}, id), close),
    el("dl", { class: "values" }, ...where, pair("repeat", el("code", { class: "command" }, run.command + id))),
    ...articles, ...more);
  panel.hidden = false;
  panel.scrollTop = 0;
  if (focus) panel.focus();
}
const pair = (name, value, kind) => el("div", { class: name }, el("dt", {}, name), el("dd", { class: kind }, value));
// The findings that a record belongs to.
const causes = (record, event, _, view) => findings.flatMap((found, i) =>
  (found.event === event && found.views.includes(view) && found.records.has(record) ? [i] : []));
function article(detail, cases, causes) {
  const verdict = VERDICTS[detail.verdict];
  const tag = el("span", { class: `tag ${verdict}` }, el("b", { "aria-hidden": "true" }, data.marks[detail.verdict]), verdict);
  const list = el("dl", { class: "values" }, ...detail.values.filter(([, value]) => value).map(([name, value]) => pair(name, value)));
  for (const i of causes) {
    const link = el("a", { href: `#f${i}` }, findings[i].title);
    link.addEventListener("click", () => unfold(i));
    list.append(pair("finding", link, "text"));
  }
  if (detail.reason) list.append(pair("because", detail.reason, "text"));
  if (detail.deviation) list.append(pair("deviation", commit(detail.deviation)));
  detail.cite.forEach((text, i) => list.append(pair(i ? "" : "cite", text, "text")));
  const shown = el("details", cases.length <= SHOWN_CASES && detail.verdict < SKIP_OVER ? { open: "" } : {},
    el("summary", {}, `${number(cases.length)} ${cases.length === 1 ? "case" : "cases"}`), el("ul", {}, ...cases.map(name => el("li", {}, name))));
  return el("article", {}, el("div", {}, tag), list, shown);
}
// A finding and all that it is folded in.
function unfold(i) {
  const place = $(`f${i}`);
  for (const one of [place, place.querySelector("details")]) if (one && one.tagName === "DETAILS") one.open = true;
  for (let above = place.parentElement; above; above = above.parentElement) if (above.tagName === "DETAILS") above.open = true;
}
function commit(name) {
  if (!/^[0-9a-f]{12,40}$/.test(name)) return name;
  return el("a", { href: `https://git.kernel.org/linus/${name}`, rel: "noreferrer", target: "_blank" }, name);
}
function hide() {
  panel.hidden = true;
  opened = null;
  for (const old of body.querySelectorAll(".open")) old.classList.remove("open");
}
function back() {
  hide();
  grid.focus();
}

// Dark and light: as the system says until the button does.
const theme = $("theme"), root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)");
const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
function named() { theme.textContent = dark() ? "Light" : "Dark"; }
function toggle() {
  root.dataset.theme = dark() ? "light" : "dark";
  named();
  try { localStorage.setItem("kvmtest-theme", root.dataset.theme); } catch { /* a page of a file may have no storage */ }
}
try { const kept = localStorage.getItem("kvmtest-theme"); if (kept === "dark" || kept === "light") root.dataset.theme = kept; } catch { /* as above */ }
system.addEventListener("change", named);
theme.addEventListener("click", toggle);
named();

function pressed(on) {
  state.on = on;
  for (const chip of document.querySelectorAll(".chip")) chip.setAttribute("aria-pressed", on[chip.dataset.verdict]);
  filter();
}
for (const chip of document.querySelectorAll(".chip")) {
  chip.addEventListener("click", () => pressed(state.on.map((on, i) => (i === Number(chip.dataset.verdict) ? !on : on))));
}
$("only").addEventListener("click", () => {
  const only = VERDICTS.map((_, i) => i < SKIP_OVER);
  pressed(state.on.every((on, i) => on === only[i]) ? VERDICTS.map(() => true) : only);
});
let waiting = 0;
search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 120); });
for (const id of ["event", "order"]) $(id).addEventListener("change", filter);
function look(view) {
  state.view = view;
  $("view").value = view;
  active = [0, 0];
  hide();
  chart();
}
for (const id of ["view", "map-run"]) $(id)?.addEventListener("change", () => { look(Number($(id).value)); filter(); });
$("finding-off").addEventListener("click", () => { narrow(-1, null); filter(); search.focus(); });
$("filter").addEventListener("submit", event => event.preventDefault());
function narrow(finding, place) { [state.finding, state.place] = [finding, place]; }
// From a finding or a cell of the map to its results, in one run or in all.
function lead(finding, place, view) {
  narrow(finding, place);
  look(view);
  search.value = $("event").value = "";
  pressed(VERDICTS.map(() => true));
  $("results-title").scrollIntoView();
  grid.focus();
  active = [0, -1];
  seek(1);
  move(...active);
  show();
  move(...active);  // the details take room from the table
}
for (const button of document.querySelectorAll(".find")) {
  const { find, run } = button.dataset;
  button.addEventListener("click", () => lead(Number(find), null, run ? Number(run) : runs.length > 1 ? DIFFERING : 0));
}
const links = [...document.querySelectorAll(".map a")];
for (const link of links) {
  link.addEventListener("click", event => {
    const cell = link.parentElement, row = cell.parentElement, column = cell.closest("table").rows[0].cells[cell.cellIndex];
    const group = Number(column.dataset.group), doing = Number(row.dataset.state);
    lead(-1, { group, doing, title: `${groups[group].join(".")}, ${row.cells[0].textContent}` }, state.view < 0 ? ALL : state.view);
    event.preventDefault();
  });
}
// The map of one run, or of all together.
function chart() {
  if (!$("map-run")) return;
  $("map-run").value = Math.max(state.view, ALL);
  data.charts[data.chart[Math.max(state.view, ALL) + 1]].forEach((number, i) => {
    const [verdict, cases, title] = data.cells[number] || [0, "", ""], link = links[i];
    link.hidden = !title;
    link.className = VERDICTS[verdict];
    link.title = title;
    link.replaceChildren(el("b", {}, data.marks[verdict]), String(cases));
  });
}
$("help-open").addEventListener("click", () => $("help").showModal());

grid.addEventListener("scroll", () => requestAnimationFrame(draw));
addEventListener("resize", () => requestAnimationFrame(draw));
body.addEventListener("click", event => {
  const cell = event.target.closest(".cell");
  if (!cell) return;
  move(Number(cell.dataset.row), Number(cell.dataset.column));
  show();
});
grid.addEventListener("keydown", event => {
  const [row, column] = active, screen = Math.max(1, Math.floor((grid.clientHeight - head.offsetHeight) / rowHeight) - 1);
  const to = {
    ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
    PageUp: [row - screen, column], PageDown: [row + screen, column],
    Home: [event.ctrlKey ? 0 : row, 0], End: [event.ctrlKey ? rows.length : row, columns.length],
  }[event.key];
  if (to && !event.altKey && !event.metaKey) move(...to);
  else if (event.key === "Enter" || event.key === " ") show(true);
  else return;
  event.preventDefault();
});
document.addEventListener("keydown", event => {
  if ($("help").open || event.ctrlKey || event.altKey || event.metaKey) return;
  const typing = event.target.matches("input, select");
  if (event.key === "Escape") {
    if (event.target === search && search.value) { search.value = ""; filter(); }
    else if (event.target === search) grid.focus();
    else if (!panel.hidden) back();
    else return;
  } else if (typing) return;
  else if (event.key === "/") search.focus();
  else if (event.key === "n") { grid.focus(); seek(1); }
  else if (event.key === "p") { grid.focus(); seek(-1); }
  else if (event.key === "t") toggle();
  else if (event.key === "?") $("help").showModal();
  else return;
  event.preventDefault();
});

for (const event of [...new Set(groups.map(group => group[0]))]) $("event").append(el("option", { value: event }, event));
if (runs.length > 1) {
  const choices = [[DIFFERING, "all runs, what differs"], [ALL, "all runs"], ...runs.map((run, i) => [i, run.name])];
  const options = choices.map(([value, name]) => el("option", { value }, name));
  $("view").append(...options);
  if ($("map-run")) $("map-run").append(...options.slice(1).map(option => option.cloneNode(true)));
  if ($("map-run")) $("map-run").hidden = false;
} else $("view").hidden = true;
filter();
