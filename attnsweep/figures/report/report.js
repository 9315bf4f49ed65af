"use strict";
// The page: draws what #data holds. No request is made; state survives a reload in sessionStorage.

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
const seeds = (i) => {
  const s = set().settings, done = s.seeds[i], begun = s.begun[i];
  return begun > done ? `${done} of ${begun} seeds done` : done === 1 ? "one seed" : `${done} seeds`;
};
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

// --- Colours ---

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const look = (model) => {
  if (page.looks[model]) return page.looks[model];
  const sum = [...model].reduce((total, c) => total + c.codePointAt(0), 0);
  return page.spare[sum % page.spare.length];
};
const layout = (more) => Object.assign({
  paper_bgcolor: css("--paper"), plot_bgcolor: css("--paper"), font: { color: css("--ink"), size: 13 },
  margin: { l: 60, r: 20, t: 20, b: 50 }, hovermode: "closest",
  hoverlabel: { align: "left", bgcolor: css("--tint"), bordercolor: css("--line"), font: { color: css("--ink") } },
}, more);
const axis = (more) => Object.assign({ gridcolor: css("--line"), linecolor: css("--line"), zeroline: false, automargin: true }, more);

// --- Quality against cost ---

function hover(i) {
  const s = set().settings, lines = [`<b>${plain(s.label[i])}</b>`, `test ${said(i)}`];
  if (known(s.val[i])) lines.push(`validation ${quality(s.val[i])}${percent()}`);
  if (s.doubt_of[i] !== "seeds and test set") lines.push(`the interval allows for: ${s.doubt_of[i]}`);
  for (const one of set().costs) if (known(one.values[i]) && (one === cost() || !one.name.includes(" "))) lines.push(`${plain(one.label)}: ${short(one.values[i])}`);
  if (cost() && known(cost().p_front[i])) lines.push(`on the front in ${(100 * cost().p_front[i]).toFixed(0)} % of draws`);
  const axes = Object.entries(set().axes).filter(([, values]) => known(values[i])).map(([name, values]) => `${name}=${values[i]}`);
  const rest = Object.entries(set().common).map(([name, value]) => `${name}=${value}`);
  const all = [...axes, ...rest];
  for (let k = 0; k < all.length; k += 5) lines.push(`<i>${plain(all.slice(k, k + 5).join(" "))}</i>`);
  lines.push(plain("trials " + s.trials[i].slice(0, 4).join(" ") + (s.trials[i].length > 4 ? " \u2026" : "")));
  return lines.join("<br>");
}

function traces() {
  const s = set().settings, now = cost(), best = front(), onFront = new Set(best), inside = matching(), affordable = budget();
  const there = inside.filter((i) => known(now.values[i]) && now.values[i] > 0 && known(s.test[i]));
  const drawn = best.filter((i) => known(s.test[i]) && now.values[i] > 0);
  const found = [];
  const scale = set().quality.fraction ? 100 : 1;
  if (drawn.length) {
    const x = drawn.map((i) => now.values[i]), right = Math.max(...there.map((i) => now.values[i])) * 1.15;
    const step = { mode: "lines", hoverinfo: "skip", showlegend: false };
    const ends = (values) => [...drawn.map((i) => scale * values[i]), scale * values[drawn[drawn.length - 1]]];
    found.push({ ...step, x: [...x, right], y: ends(s.low), line: { shape: "hv", width: 0 } });
    found.push({ ...step, x: [...x, right], y: ends(s.high), line: { shape: "hv", width: 0 }, fill: "tonexty", fillcolor: "rgba(127,127,127,0.22)" });
    found.push({ ...step, x: [...x, right], y: ends(s.test), line: { shape: "hv", width: 1.4, color: css("--soft") }, name: "front" });
  }
  for (const model of [...new Set(there.map((i) => s.model[i]))]) {
    const all = there.filter((i) => s.model[i] === model), [colour, symbol] = look(model);
    const parts = all.length <= MANY ? [all] : [all.filter((i) => !onFront.has(i)), all.filter((i) => onFront.has(i))];
    const barred = (i) => s.doubt_of[i] !== "nothing";
    for (const of of parts.filter((part) => part.length)) found.push({
      type: of.length > 2000 ? "scattergl" : "scatter", mode: "markers", name: plain(model), customdata: of,
      x: of.map((i) => now.values[i]), y: of.map((i) => scale * s.test[i]),
      showlegend: of === parts[0], legendgroup: model,
      error_y: {
        visible: of.length <= MANY || onFront.has(of[0]), type: "data", symmetric: false, thickness: 1.2, width: 3, color: colour,
        array: of.map((i) => (barred(i) ? scale * (s.high[i] - s.test[i]) : 0)),
        arrayminus: of.map((i) => (barred(i) ? scale * (s.test[i] - s.low[i]) : 0)),
      },
      marker: {
        color: colour, size: of.map((i) => (onFront.has(i) ? 13 : 8)), line: { width: 1.5, color: colour },
        symbol: of.map((i) => (s.seeds[i] === 1 ? symbol + "-open" : symbol)),
        opacity: of.map((i) => (affordable(i) ? (onFront.has(i) ? 1 : 0.65) : 0.15)),
      },
      text: of.map(hover), hovertemplate: "%{text}<extra></extra>",
    });
  }
  return found;
}

function drawFront() {
  if (!cost()) { $("front").textContent = "no cost is known that could be compared"; return; }
  const now = cost(), at = limitOf(now.values, state.limit);
  const shapes = at < Infinity ? [{ type: "line", x0: at, x1: at, yref: "paper", y0: 0, y1: 1, line: { dash: "dot", color: css("--accent") } }] : [];
  Plotly.react("front", traces(), layout({
    xaxis: axis({ type: "log", title: { text: plain(now.label + (now.where ? ` (${now.where})` : "")) }, exponentformat: "SI" }),
    yaxis: axis({ title: { text: `${set().quality.name} on test${set().quality.fraction ? " (%)" : ""}` } }),
    legend: { orientation: "h", y: 1.08 }, shapes,
  }), CONFIG);
  $("front").dataset.front = JSON.stringify(front().map((i) => set().settings.trials[i][0]));
  const s = set().settings, alone = s.seeds.filter((n) => n === 1).length;
  $("reading").textContent =
    `Line: the front, selected by ${set().quality.selects}; its height and the band around it are those of the test set. ` +
    "Bars and band: 95 % intervals" + (alone ? `. Hollow: one seed (${alone} of ${s.seeds.length} settings), whose interval does not know other seeds` : "") +
    (s.label.length > MANY ? ". Only the front has bars." : ".");
}

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
  parts.push(`${s.label[best]}: ${said(best)}` + (known(value) ? ` at ${short(value)} ${now.unit}` : ""));
  if (s.noise && known(value)) {
    const cheap = s.noise[best].filter((i) => found.includes(i) && known(now.values[i]) && now.values[i] * 1.25 <= value);
    cheap.sort((a, b) => now.values[a] - now.values[b]);
    if (cheap.length) parts.push(`${s.label[cheap[0]]} is within noise of it and takes 1/${short(value / now.values[cheap[0]])} of that`);
  }
  parts.push(`trial ${s.trials[best][0]}`);
  return parts.join("; ");
}

// --- Tables ---

function cell(value, { number = false, wide = false } = {}) {
  const td = document.createElement("td");
  td.textContent = typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(4))) : known(value) ? String(value) : "\u2013";
  if (number) td.className = "number";
  if (wide) td.className = "wide";
  return td;
}
function head(names, sorted, pressed) {
  const row = document.createElement("tr");
  for (const name of names) {
    const th = document.createElement("th");
    th.scope = "col";
    if (pressed) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name + (sorted.name === name ? (sorted.down ? " \u25be" : " \u25b4") : "");
      button.addEventListener("click", () => pressed(name));
      th.setAttribute("aria-sort", sorted.name !== name ? "none" : sorted.down ? "descending" : "ascending");
      th.append(button);
    } else th.textContent = name;
    row.append(th);
  }
  const part = document.createElement("thead");
  part.append(row);
  return part;
}

function drawSettings() {
  if (!$("settings-details").open) return;
  const s = set().settings, table = $("settings"), best = new Set(front()), shown = choose().slice(0, ROWS);
  table.replaceChildren(head(["setting", "test", "validation", ...set().costs.map((one) => one.label), "on front", "trial"]));
  const body = document.createElement("tbody");
  for (const i of shown) {
    const row = document.createElement("tr");
    const p = cost() ? cost().p_front[i] : null;
    row.append(cell(s.label[i]), cell(said(i)), cell(quality(s.val[i])), ...set().costs.map((one) => cell(short(one.values[i]), { number: true })));
    row.append(cell((best.has(i) ? "yes" : "no") + (known(p) ? `, ${(100 * p).toFixed(0)} %` : "")), cell(s.trials[i][0]));
    body.append(row);
  }
  table.append(body);
}

const columns = Object.keys(page.trials).filter((name) => name !== "rerun");
const texts = page.trials.trial_id.map((_, i) =>
  ["trial_id", "trial", "dataset", "status"].map((name) => page.trials[name][i]).join(" ").toLowerCase());
function found() {
  const asked = words(state.find), rows = [];
  for (let i = 0; i < texts.length; i++) if (asked.every((word) => texts[i].includes(word))) rows.push(i);
  if (state.sort) {
    const values = page.trials[state.sort], sign = state.down ? -1 : 1;
    rows.sort((a, b) => {
      const x = values[a], y = values[b];
      if (!known(x) || !known(y)) return known(x) ? -1 : known(y) ? 1 : a - b;
      return sign * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y))) || a - b;
    });
  }
  return rows;
}
function drawRows() {
  const rows = found(), table = $("rows"), body = document.createElement("tbody");
  table.replaceChildren(head(columns, { name: state.sort, down: state.down }, (name) => {
    state.down = state.sort === name ? !state.down : typeof page.trials[name].find(known) === "number";
    state.sort = name;
    drawRows(); keep();
    [...table.querySelectorAll("th button")][columns.indexOf(name)].focus();
  }));
  for (const i of rows.slice(0, state.rows)) {
    const row = document.createElement("tr");
    for (const name of columns) {
      const value = page.trials[name][i], td = cell(name === "params" || name === "macs" ? short(value) : value, { number: typeof value === "number" });
      if (name === "trial_id") {
        const button = document.createElement("button");
        button.type = "button"; button.textContent = value; button.title = "the line that runs it again";
        button.setAttribute("aria-expanded", "false");
        button.addEventListener("click", () => unfold(row, button, i));
        td.replaceChildren(button);
      }
      row.append(td);
    }
    body.append(row);
  }
  table.append(body);
  $("found").textContent = `${rows.length} of ${texts.length} trials` + (rows.length > state.rows ? `, the first ${state.rows} shown` : "");
  $("more").hidden = rows.length <= state.rows;
}
function unfold(row, button, i) {
  const open = button.getAttribute("aria-expanded") === "true";
  button.setAttribute("aria-expanded", String(!open));
  if (open) { row.nextSibling.remove(); return; }
  const more = document.createElement("tr"), td = document.createElement("td"), pre = document.createElement("pre");
  td.colSpan = columns.length;
  pre.textContent = page.trials.rerun[i] || "this row does not say enough to run it again";
  td.append(pre); more.append(td); row.after(more);
}

// --- Curves, parallel coordinates, importance ---

function drawCurves() {
  const s = set().settings, scale = set().quality.fraction ? 100 : 1, chosen = choose().filter((i) => set().curves[i]);
  const shown = chosen.slice(0, CURVES), found = [], dashes = ["solid", "dash", "dot", "dashdot", "longdash"];
  $("curves-note").textContent = !chosen.length ? "No learning curve was kept." :
    `${set().quality.selects} by epoch: mean of the seeds, band from the lowest to the highest. ` +
    (chosen.length > CURVES ? `The ${CURVES} best of ${chosen.length} settings within the limits above.` : "");
  shown.forEach((i, k) => {
    const one = set().curves[i], [colour] = look(s.model[i]), turns = shown.slice(0, k).filter((j) => s.model[j] === s.model[i]).length;
    const y = (name) => one[name].map((v) => scale * v), name = plain(s.label[i]) + (s.seeds[i] === 1 ? " (one seed)" : "");
    if (s.seeds[i] > 1) {
      const edge = { x: one.epoch, mode: "lines", line: { width: 0 }, hoverinfo: "skip", showlegend: false, legendgroup: String(i) };
      found.push({ ...edge, y: y("min") }, { ...edge, y: y("max"), fill: "tonexty", fillcolor: colour + "2e" });
    }
    found.push({ x: one.epoch, y: y("mean"), name, legendgroup: String(i), mode: "lines+markers", marker: { size: 5 },
      line: { color: colour, dash: dashes[turns % dashes.length] }, hovertemplate: `${name}<br>epoch %{x}: %{y:.4g}<extra></extra>` });
  });
  const last = Math.max(1, ...shown.map((i) => set().curves[i].epoch.at(-1)));
  Plotly.react("curves", found, layout({
    xaxis: axis({ title: { text: "epoch" }, tick0: 0, dtick: Math.max(1, Math.ceil(last / 10)) }),
    yaxis: axis({ title: { text: set().quality.selects + (set().quality.fraction ? " (%)" : "") } }),
    legend: innerWidth < 700 ? { orientation: "h", y: -0.35 } : {},
  }), CONFIG);
}

function dimension(name, values) {
  const there = values.filter(known);
  if (there.every((v) => typeof v === "number") && there.length === values.length && there.length) return { label: plain(name), values };
  const kinds = [...new Set(values.map((v) => (known(v) ? String(v) : "\u2013")))].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
  return { label: plain(name), values: values.map((v) => kinds.indexOf(known(v) ? String(v) : "\u2013")),
    tickvals: kinds.map((_, k) => k), ticktext: kinds.map((kind) => plain(kind.slice(-18))) };
}
function drawParallel() {
  const s = set().settings, scale = set().quality.fraction ? 100 : 1, shown = matching().filter((i) => known(s.test[i]));
  const of = (values) => shown.map((i) => values[i]);
  const dimensions = Object.entries(set().axes).map(([name, values]) => dimension(name, of(values)));
  if (cost()) {
    const one = dimension(cost().label.slice(0, 24), of(cost().values).map((v) => (known(v) && v > 0 ? Math.log10(v) : null)).map((v) => (known(v) ? v : NaN)));
    const there = one.values.filter((v) => !Number.isNaN(v));
    if (there.length) {
      const low = Math.min(...there), high = Math.max(...there), ticks = [low, (low + high) / 2, high];
      dimensions.push({ label: one.label, values: one.values.map((v) => (Number.isNaN(v) ? low : v)), tickvals: ticks, ticktext: ticks.map((t) => short(10 ** t)) });
    }
  }
  dimensions.push({ label: set().quality.name + (scale === 100 ? " (%)" : ""), values: of(s.test).map((v) => scale * v) });
  Plotly.react("parallel", [{ type: "parcoords", dimensions, labelangle: innerWidth < 700 ? -25 : 0,
    line: { color: of(s.test).map((v) => scale * v), colorscale: "Cividis", showscale: true } }], layout({ margin: { l: 70, r: 40, t: 60, b: 30 } }), CONFIG);
}

function drawImportance() {
  const found = set().importance || null;
  $("importance-section").hidden = !found || !found.names.length;
  if ($("importance-section").hidden) return;
  $("importance-note").textContent = found.note;
  const order = found.names.map((_, k) => k).sort((a, b) => found.value[a] - found.value[b]);
  const of = (name) => order.map((k) => found[name][k]);
  Plotly.react("importance", [{
    type: "bar", orientation: "h", y: of("names").map(plain), x: of("value"), marker: { color: "#0072B2" },
    error_x: { type: "data", symmetric: false, array: order.map((k) => found.high[k] - found.value[k]), arrayminus: order.map((k) => found.value[k] - found.low[k]), color: css("--ink") },
    hovertemplate: "%{y}: %{x:.3g}<extra></extra>",
  }], layout({ xaxis: axis({ title: { text: found.unit } }), yaxis: axis({}) }), CONFIG);
}

// --- All of it ---

function once() {
  const done = (page.counts.done || 0), rest = Object.entries(page.counts).filter(([name]) => name !== "done");
  $("about").textContent = `${page.results}: ${done} trials done` + rest.map(([name, n]) => `, ${n} ${name}`).join("") +
    `. Written ${page.made} by attnsweep ${page.version}` + (page.live_s ? `, kept current every ${page.live_s} s.` : ".");
  page.datasets.forEach((one, i) => $("dataset").add(new Option(one.dataset, i)));
  $("dataset-label").hidden = page.datasets.length < 2;
  $("failures-section").hidden = !page.failures.length;
  for (const one of page.failures) {
    const p = document.createElement("p"), pre = document.createElement("pre");
    p.textContent = `${one.trials.length} ${one.status}: ${one.trials.slice(0, 8).join(" ")}${one.trials.length > 8 ? " \u2026" : ""}`;
    pre.textContent = one.error;
    $("failures").append(p, pre);
  }
  $("provenance").replaceChildren(head(["what", "value (trials)"]));
  for (const [name, value] of page.provenance) {
    const row = document.createElement("tr");
    row.append(cell(name), cell(value, { wide: true }));
    $("provenance").append(row);
  }
}
function fillCosts() {
  $("cost").replaceChildren();
  set().costs.forEach((one, i) => $("cost").add(new Option(one.label, i)));
  state.cost = Math.min(state.cost, Math.max(set().costs.length - 1, 0));
  $("remarks").replaceChildren(...[...set().remarks, ...page.remarks].map((text) => Object.assign(document.createElement("li"), { textContent: text })));
}
function controls() {
  $("dataset").value = state.dataset; $("cost").value = state.cost; $("limit").value = state.limit; $("params").value = state.params;
  $("filter").value = state.filter; $("find").value = state.find;
  const size = costNamed("params"), now = cost();
  $("params-label").hidden = !size || now === size;
  if ($("params-label").hidden) state.params = 100;
  const written = (one, share) => (share >= 100 || !one ? "no limit" : short(limitOf(one.values, share)));
  $("limit-value").textContent = written(now, state.limit);
  $("params-value").textContent = written(size, state.params);
}
function keep() { if (page.live_s) sessionStorage.setItem(KEY, JSON.stringify({ ...state, scroll: scrollY })); }
const later = new Map();
function lazily(id, draw) { // not before it is nearly seen
  later.set(id, draw);
  const watcher = new IntersectionObserver((entries) => {
    if (entries.some((one) => one.isIntersecting)) { watcher.disconnect(); later.delete(id); draw(); }
  }, { rootMargin: "300px" });
  watcher.observe($(id));
}
const drawn = { curves: drawCurves, parallel: drawParallel };
function update() {
  controls();
  $("pick").textContent = sentence();
  drawFront(); drawSettings(); drawImportance();
  for (const [id, draw] of Object.entries(drawn)) if (!later.has(id)) draw();
  keep();
}
function theme(name) { document.documentElement.dataset.theme = name; }

function begin() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  theme(state.theme || (dark.matches ? "dark" : "light"));
  dark.addEventListener("change", () => { if (!state.theme) { theme(dark.matches ? "dark" : "light"); update(); } });
  once();
  drawRows();
  const on = (id, event, change) => $(id).addEventListener(event, () => { change($(id).value); update(); });
  if (page.datasets.length) {
    state.dataset = Math.min(state.dataset, page.datasets.length - 1);
    fillCosts();
    on("dataset", "change", (value) => { Object.assign(state, { dataset: Number(value), cost: 0, limit: 100, params: 100 }); fillCosts(); });
    on("cost", "change", (value) => { Object.assign(state, { cost: Number(value), limit: 100 }); });
    on("limit", "input", (value) => { state.limit = Number(value); });
    on("params", "input", (value) => { state.params = Number(value); });
    on("filter", "input", (value) => { state.filter = value; });
    $("settings-details").addEventListener("toggle", drawSettings);
    $("theme").addEventListener("click", () => {
      state.theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
      theme(state.theme); update();
    });
    lazily("curves", drawCurves);
    lazily("parallel", drawParallel);
    update();
  } else {
    $("remarks").replaceChildren(...page.remarks.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
    for (const one of document.querySelectorAll("main > section:nth-of-type(-n+3)")) one.hidden = true;
  }
  $("find").value = state.find;
  $("find").addEventListener("input", () => { state.find = $("find").value; state.rows = ROWS; drawRows(); keep(); });
  $("more").addEventListener("click", () => { state.rows += 5 * ROWS; drawRows(); });
  if (page.live_s) {
    scrollTo(0, state.scroll || 0);
    setTimeout(() => { keep(); location.reload(); }, 1000 * page.live_s);
  }
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}
begin();
