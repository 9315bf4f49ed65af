"use strict";
// What the page knows and what is chosen on it; state survives a reload in sessionStorage.

const page = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const CONFIG = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d"] };
const MANY = 200; // settings, from which on only the front has bars
const ROWS = 200; // of a table, at first
const CURVES = 10;
const KEY = "attnsweep " + page.results;
const state = Object.assign(
  { dataset: 0, cost: 0, limit: 100, params: 100, filter: "", find: "", sort: null, down: false, theme: null, rows: ROWS },
  page.live_s ? JSON.parse(sessionStorage.getItem(KEY) || "{}") : {},
);

// --- Words ---

const known = (value) => value !== null && value !== undefined;
// plotly reads some HTML in texts; names are somebody else's
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const cut = (text, most = 40) => { // the beginning and the end of what is too long for a figure
  const all = [...String(text)];
  return all.length <= most ? String(text) : all.slice(0, most / 2).join("") + "\u2026" + all.slice(1 - most / 2).join("");
};
const short = (value) => {
  if (!known(value)) return "\u2013";
  if (typeof value !== "number") return String(value);
  for (const [size, unit] of [[1e9, " G"], [1e6, " M"], [1e3, " k"]])
    if (Math.abs(value) >= size) return Number((value / size).toPrecision(3)) + unit;
  return String(Number(value.toPrecision(3)));
};
const quality = (value, like = value) => {
  if (!known(value)) return "\u2013";
  return set().quality.fraction ? (100 * value).toFixed(like >= 0.99 ? 2 : 1) : String(Number(value.toPrecision(4)));
};
const percent = () => (set().quality.fraction ? " %" : "");
const priced = (one, i, unit = ` ${one.unit}`) => { // a cost, and its interval where it has one
  const ends = one.low && known(one.low[i]) && known(one.high[i]) ? ` (${short(one.low[i])} to ${short(one.high[i])})` : "";
  return `${short(one.values[i])}${unit}${ends}`;
};
const seeds = (i) => {
  const s = set().settings, done = s.seeds[i], begun = s.begun[i];
  return begun > done ? `${done} of ${begun} seeds done` : done === 1 ? "one seed" : `${done} seeds`;
};
const chance = (i) => `${(100 * cost().p_front[i]).toFixed(0)} %`; // to be on the front
const ofWhat = () => (set().of_trials ? " of the trials that ran" : "");
const said = (i) => {
  const s = set().settings, test = s.test[i];
  const ends = s.doubt_of[i] === "nothing" ? "" : `${quality(s.low[i], test)} to ${quality(s.high[i], test)}, `;
  return `${quality(test)}${percent()} (${ends}${seeds(i)})`;
};

// --- What is chosen ---

const set = () => page.datasets[state.dataset];
const cost = () => set().costs[state.cost] || null;
const costNamed = (name) => set().costs.find((one) => one.name === name) || null;
const span = (values) => {
  const there = values.filter((v) => known(v) && v > 0);
  return there.length ? [Math.min(...there), Math.max(...there)] : null;
};
// a slider's 0..100 on a logarithmic scale over the values; 100 is no limit
const limitOf = (values, share) => {
  const ends = share >= 100 ? null : span(values);
  if (!ends) return Infinity;
  return ends[0] * Math.pow(ends[1] / ends[0], share / 100) * (1 + 1e-9);
};
const words = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);
const matching = () => {
  const asked = words(state.filter);
  return set().settings.label.map((_, i) => i).filter((i) => {
    const text = set().settings.label[i].toLowerCase();
    return asked.every((word) => text.includes(word));
  });
};
const budget = () => { // whether a setting is within the limits
  const within = (one, share) => {
    if (!one || share >= 100) return () => true;
    const most = limitOf(one.values, share);
    return (i) => known(one.values[i]) && one.values[i] <= most;
  };
  const first = within(cost(), state.limit), second = within(costNamed("params"), state.params);
  return (i) => first(i) && second(i);
};
// as attnsweep.front: selected on validation; of equal ones all stay
function frontOf(indices, values, val) {
  const there = indices.filter((i) => known(values[i]) && known(val[i]));
  there.sort((a, b) => values[a] - values[b] || val[b] - val[a] || a - b);
  const found = [];
  let best = -Infinity, at = 0;
  while (at < there.length) {
    const first = there[at], same = [];
    let next = at;
    for (; next < there.length && values[there[next]] === values[first]; next++)
      if (val[there[next]] === val[first]) same.push(there[next]);
    if (val[first] > best) { found.push(...same); best = val[first]; }
    at = next;
  }
  return found;
}
const front = () => (cost() ? frontOf(matching(), cost().values, set().settings.val) : []);

// --- The pick ---

function choose() {
  const s = set().settings, affordable = budget(), inside = matching().filter((i) => affordable(i) && known(s.val[i]));
  const c = cost() ? cost().values : [], by = (i) => (known(c[i]) ? c[i] : Infinity);
  inside.sort((a, b) => s.val[b] - s.val[a] || by(a) - by(b) || a - b);
  return inside;
}
function sentence() {
  const s = set().settings, now = cost(), found = choose();
  $("pick").dataset.pick = found.length ? s.trials[found[0]][0] : "";
  if (!found.length) return "Nothing fits; move a limit to the right.";
  const best = found[0], parts = [];
  const value = now && now.values[best];
  parts.push(`${s.label[best]}: ${said(best)}` + (known(value) ? ` at ${priced(now, best)}` : ""));
  if (s.noise && known(value)) {
    const cheap = s.noise[best].filter((i) => found.includes(i) && known(now.values[i]) && now.values[i] * 1.25 <= value);
    cheap.sort((a, b) => now.values[a] - now.values[b]);
    const times = cheap.length && Number((value / now.values[cheap[0]]).toPrecision(2));
    const less = now.name.startsWith("latency") ? `${times} times as fast` : `takes 1/${times} of that`;
    if (cheap.length) parts.push(`${s.label[cheap[0]]} is within noise of it and ${less}`);
  }
  parts.push(`trial ${s.trials[best][0]}`);
  return parts.join("; ");
}
