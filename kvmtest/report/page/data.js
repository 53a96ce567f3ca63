// SPDX-License-Identifier: GPL-2.0-only
// The results as the page has them in JSON, and what a search finds in them. page.js comes after it in one script.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const VERDICTS = data.verdicts, SKIP_OVER = data.attention;  // the worst first; those before SKIP_OVER need attention
const NONE = 127, EXTRA_ROWS = 8, SHOWN_DETAILS = 12, SHOWN_CASES = 8;
const $ = id => document.getElementById(id);

const number = value => value.toLocaleString("en");
// The numbers in spans, which are numbers, and pairs of the first and the last.
function expand(spans) {
  const size = spans.reduce((sum, span) => sum + (typeof span === "number" ? 1 : span[1] - span[0] + 1), 0), all = new Int32Array(size);
  let at = 0;
  for (const span of spans) {
    if (typeof span === "number") all[at++] = span;
    else for (let i = span[0]; i <= span[1]; i++) all[at++] = i;
  }
  return all;
}

// Observations are of a group (event, trigger, view) and a case, and look like others; what looks the same has the same records.
const { groups, items, cases, states } = data, looks = data.looks.map(expand);
const [groupOf, caseOf, lookOf] = [0, 1, 2].map(part => Int32Array.from(data.seen, seen => seen[part]));
const runs = data.runs.map(([name, command, seen]) => ({ name, command, seen: expand(seen) }));
const records = data.records.map(([verdict, item, planted, expected, observed, differs, reason, deviation, cite]) => ({
  verdict, item, cite: data.cites[cite].map(i => data.strings[i]), reason: data.strings[reason], deviation: data.strings[deviation],
  values: [["planted", planted], ["expected", expected], ["observed", observed], ["differs", differs]].map(([n, i]) => [n, data.strings[i]]),
}));
const verdictOf = Int8Array.from(records, record => record.verdict), itemOf = Int32Array.from(records, record => record.item);
const findings = data.findings.map(([title, event, views, of]) => ({ title, event, views, records: new Set(expand(of)) }));
// Ids in the order in which they came, and how many results there are.
const idAt = new Int32Array(groups.length * items.length).fill(-1), ids = [], names = [];
let total = 0;
for (const run of runs) for (const seen of run.seen) total += looks[lookOf[seen]].length;
data.seen.forEach(([group, , look]) => {
  for (const record of looks[look]) {
    const item = itemOf[record], at = group * items.length + item;
    if (idAt[at] >= 0) continue;
    idAt[at] = ids.length;
    ids.push([group, item]);
    names.push([...groups[group], items[item]].join("."));
  }
});

// The text to search, in lower case; made when it is first needed.
let hay = null;
function haystacks() {
  hay = hay || {
    ids: names.map(name => name.toLowerCase()),
    cases: cases.map(name => name.toLowerCase()),
    records: records.map(d => [VERDICTS[d.verdict], d.reason, d.deviation, ...d.values.map(v => v[1])].join("\n").toLowerCase()),
  };
  return hay;
}
const MOST_WORDS = 30;
// The words of a search; an id with the words of a case after a slash is two.
function split(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return words.flatMap(word => (/^[^/]*\.[^/]*\.[^/]*\//.test(word) ? word.split(/(?=\/)/) : [word])).slice(0, MOST_WORDS);
}
// A word with * or {a,b} as a pattern.
function pattern(word) {
  const escaped = word.replace(/[.+?^$()|[\]\\]/g, "\\$&").replace(/\*+/g, ".*");
  const open = escaped.replace(/\{([^{}]*)\}/g, (_, either) => `(?:${either.replaceAll(",", "|")})`).replace(/[{}]/g, "\\$&");
  return new RegExp(`^${open}$`);
}
// Which words are in each id, case and record, a bit a word. A glob is over ids.
function matches(words) {
  const where = haystacks(), bits = {};
  for (const name of Object.keys(where)) bits[name] = new Int32Array(where[name].length);
  words.forEach((word, w) => {
    const glob = /[*{]/.test(word) && pattern(word);
    for (const name of glob ? ["ids"] : Object.keys(where)) {
      where[name].forEach((text, i) => { if (glob ? glob.test(text) : text.includes(word)) bits[name][i] |= 1 << w; });
    }
  });
  return bits;
}
