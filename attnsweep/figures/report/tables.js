// The settings and the trials as tables.

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
  table.replaceChildren(head(["setting", "test", "validation", ...set().costs.map((one) => one.label), "on front" + ofWhat(), "trial"]));
  const body = document.createElement("tbody");
  for (const i of shown) {
    const row = document.createElement("tr");
    row.append(cell(s.label[i]), cell(said(i)), cell(quality(s.val[i])), ...set().costs.map((one) => cell(short(one.values[i]), { number: true })));
    row.append(cell((best.has(i) ? "yes" : "no") + (cost() && known(cost().p_front[i]) ? `, ${chance(i)}` : "")), cell(s.trials[i][0]));
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
  if (page.trials[state.sort]) {
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
