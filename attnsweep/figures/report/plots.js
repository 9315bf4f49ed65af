// What plotly draws of the data set that is chosen.

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
  for (const one of set().costs) // their labels have the unit
    if (known(one.values[i]) && (one === cost() || !one.name.includes(" "))) lines.push(plain(`${one.label}: ${priced(one, i, "")}`));
  if (cost() && known(cost().p_front[i])) lines.push(`on the front in ${chance(i)} of draws${ofWhat()}`);
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
      type: there.length > 1000 ? "scattergl" : "scatter", mode: "markers", name: plain(cut(model)), customdata: of,
      x: of.map((i) => now.values[i]), y: of.map((i) => scale * s.test[i]),
      showlegend: of === parts[0], legendgroup: model,
      error_y: {
        visible: of.length <= MANY || onFront.has(of[0]), type: "data", symmetric: false, thickness: 1.2, width: 3, color: colour,
        array: of.map((i) => (barred(i) ? scale * (s.high[i] - s.test[i]) : 0)),
        arrayminus: of.map((i) => (barred(i) ? scale * (s.test[i] - s.low[i]) : 0)),
      },
      error_x: {
        visible: Boolean(now.low) && (of.length <= MANY || onFront.has(of[0])), type: "data", symmetric: false, thickness: 0.8, width: 0, color: colour,
        array: of.map((i) => (now.high && known(now.high[i]) ? now.high[i] - now.values[i] : 0)),
        arrayminus: of.map((i) => (now.low && known(now.low[i]) ? now.values[i] - now.low[i] : 0)),
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

// what the picture says nothing of
function leftOut() {
  const s = set().settings, now = cost();
  const lost = matching().filter((i) => !(known(now.values[i]) && now.values[i] > 0 && known(s.test[i]))).length;
  return lost ? ` Not drawn: ${lost} of ${matching().length} settings, whose cost or quality on test is not known.` : "";
}

// round costs: plotly would write 0.3 as a 3 between 0.1 and 1
function ticks(low, high) {
  for (const digits of [[1], [1, 2, 5], [1, 1.5, 2, 3, 5, 7], Array.from({ length: 90 }, (_, k) => 1 + k / 10)]) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
      for (const digit of digits) if (digit * 10 ** power >= low && digit * 10 ** power <= high) found.push(digit * 10 ** power);
    if (found.length > 3) return found.filter((_, k) => k % Math.ceil(found.length / 12) === 0);
  }
  return [0, 1, 2, 3].map((k) => low + (k / 3) * (high - low));
}
function tickTexts(low, high) {
  const values = ticks(low, high);
  return { tickmode: "array", tickvals: values, ticktext: values.map(short) };
}
function retick() { // once somebody has zoomed
  const [low, high] = $("front").layout.xaxis.range.map((end) => 10 ** end), found = tickTexts(low, high);
  if (String(found.ticktext) !== String($("front").layout.xaxis.ticktext))
    Plotly.relayout("front", { "xaxis.tickvals": found.tickvals, "xaxis.ticktext": found.ticktext });
}

function drawFront() {
  if (!cost()) { $("front").textContent = "no cost is known that could be compared"; return; }
  const now = cost(), at = limitOf(now.values, state.limit);
  const shapes = at < Infinity ? [{ type: "line", x0: at, x1: at, yref: "paper", y0: 0, y1: 1, line: { dash: "dot", color: css("--accent") } }] : [];
  const ends = span(now.values);
  Plotly.react("front", traces(), layout({
    xaxis: axis({ ...(ends ? tickTexts(ends[0] / 1.2, ends[1] * 1.2) : {}), type: "log", automargin: false, title: { text: plain(cut(now.label, 80) + (now.where ? ` (${cut(now.where, 60)})` : "")) } }),
    yaxis: axis({ automargin: false, title: { text: `${set().quality.name} on test${set().quality.fraction ? " (%)" : ""}` } }),
    legend: { orientation: "h", y: 1.08 }, shapes, margin: { l: 70, r: 20, t: 50, b: 60 }, // a margin that fits itself draws twice
  }), CONFIG);
  if (!$("front").dataset.front) $("front").on("plotly_relayout", retick);
  $("front").dataset.front = JSON.stringify(front().map((i) => set().settings.trials[i][0]));
  const s = set().settings, alone = s.seeds.filter((n) => n === 1).length;
  $("reading").textContent =
    `Line: the front, selected by ${set().quality.selects}; its height and the band around it are those of the test set. ` +
    "Bars and band: 95 % intervals, of the cost, too, where it has them" + (alone ? `. Hollow: one seed (${alone} of ${s.seeds.length} settings), whose interval does not know other seeds` : "") +
    (s.label.length > MANY ? ". Only the front has bars." : ".") + leftOut();
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
    const y = (name) => one[name].map((v) => scale * v), name = plain(cut(s.label[i])) + (s.seeds[i] === 1 ? " (one seed)" : "");
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
    legend: innerWidth < 900 ? { orientation: "h", yref: "container", y: 0, yanchor: "bottom" } : {},
  }), CONFIG);
}

function dimension(name, values) {
  const there = values.filter(known);
  if (there.every((v) => typeof v === "number") && there.length === values.length && there.length) return { label: plain(name), values };
  const kinds = [...new Set(values.map((v) => (known(v) ? String(v) : "\u2013")))].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
  return { label: plain(name), values: values.map((v) => kinds.indexOf(known(v) ? String(v) : "\u2013")),
    tickvals: kinds.map((_, k) => k), ticktext: kinds.map((kind) => kind.slice(-18)) }; // unlike other texts, plotly reads no HTML in it
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
  const found = set().importance;
  if (!found) return;
  $("importance-note").textContent = found.note;
  const of = (name) => [...found[name]].reverse(); // plotly draws from below
  const size = of("size"), low = of("low"), high = of("high");
  Plotly.react("importance", [{
    type: "bar", orientation: "h", y: of("names").map(plain), x: size,
    marker: { color: of("real").map((real) => (real ? "#0072B2" : "#8a8a8a")) },
    error_x: { type: "data", symmetric: false, array: high.map((v, k) => v - size[k]), arrayminus: low.map((v, k) => size[k] - v), color: css("--ink") },
    hovertemplate: "%{y}: %{x:.3g}<extra></extra>",
  }], layout({ xaxis: axis({ title: { text: found.unit } }), yaxis: axis({}) }), CONFIG);
}
