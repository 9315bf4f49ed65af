// The page: draws what #data holds, and again whenever something else is chosen. No request is made.

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
  $("importance-section").hidden = !set().importance;
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
const drawn = { curves: drawCurves, parallel: drawParallel, importance: drawImportance };
function update() {
  controls();
  $("pick").textContent = sentence();
  drawFront(); drawSettings();
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
    for (const [id, draw] of Object.entries(drawn)) lazily(id, draw);
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
