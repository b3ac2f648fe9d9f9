"use strict";
(() => {
  const read = (name) => JSON.parse(document.getElementById("data-" + name).textContent);
  const figures = read("figures"), best = read("best"), all = read("rows");
  const config = { responsive: true, displaylogo: false, displayModeBar: false, plotlyServerURL: "", showSendToCloud: false };

  // A figure is drawn when it comes near the window, so that a phone need not draw all at once.
  const draw = (place) => {
    const fig = figures[place.dataset.figure];
    Plotly.newPlot(place, fig.data, fig.layout, config);
  };
  const watch = new IntersectionObserver((seen) => {
    for (const one of seen) if (one.isIntersecting) { watch.unobserve(one.target); draw(one.target); }
  }, { rootMargin: "400px" });
  document.querySelectorAll(".plot").forEach((place) => watch.observe(place));

  // One view for all structures: browsers allow few 3D views on a page.
  const viewer = document.getElementById("viewer");
  const buttons = [...document.querySelectorAll("[data-best]")];
  const show = (index) => {
    Plotly.react(viewer, best[index].data, best[index].layout, config);
    buttons.forEach((one, i) => one.setAttribute("aria-pressed", String(i === index)));
  };
  buttons.forEach((one, i) => one.addEventListener("click", () => show(i)));
  if (best.length) show(0);

  // The table of all structures.
  const STEP = 100;
  const flags = ["valid", "unique", "novel"].filter((name) => all.keys.includes(name));
  const wanted = new Set();
  let column = null, down = false, shown = STEP;
  const head = document.querySelector("#all thead"), body = document.querySelector("#all tbody");
  const find = document.getElementById("find"), more = document.getElementById("more");
  const number = all.keys.map((_, i) => all.rows.some((row) => typeof row[i] === "number"));

  const matches = (row, word) => {
    const sum = /^(\w+)(<=|>=|<|>|=)(-?[\d.]+)$/.exec(word);
    const at = sum ? all.keys.findIndex((key) => key === sum[1] || key === "source_" + sum[1]) : -1;
    if (at < 0) return row.some((cell) => typeof cell === "string" && cell.toLowerCase().includes(word.toLowerCase()));
    const value = row[at], limit = Number(sum[3]);
    if (typeof value !== "number") return false;
    return { "<": value < limit, ">": value > limit, "<=": value <= limit, ">=": value >= limit, "=": value === limit }[sum[2]];
  };
  const chosen = () => {
    const words = find.value.trim().split(/\s+/).filter(Boolean);
    const rows = all.rows.filter((row) =>
      words.every((word) => matches(row, word)) && [...wanted].every((name) => row[all.keys.indexOf(name)] === true));
    if (column === null) return rows;
    const sign = down ? -1 : 1;
    return rows.sort((a, b) => {
      const x = a[column], y = b[column];
      if (x === null || y === null) return (x === null) - (y === null); // what is unknown comes last
      if (typeof x === "string") return sign * x.localeCompare(y, "en", { numeric: true });
      return sign * (x - y);
    });
  };
  const element = (name, text, kind) => {
    const made = document.createElement(name);
    made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };
  const words = (value) => (value === null ? "" : value === true ? "yes" : value === false ? "no" : String(value));
  const fill = () => {
    const rows = chosen();
    head.replaceChildren(document.createElement("tr"));
    all.heads.forEach((text, i) => {
      const cell = element("th", text + (column === i ? (down ? " ▼" : " ▲") : ""));
      cell.title = all.keys[i];
      cell.tabIndex = 0;
      const sort = () => { down = column === i && !down; column = i; fill(); };
      cell.addEventListener("click", sort);
      cell.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
      head.firstChild.append(cell);
    });
    body.replaceChildren(...rows.slice(0, shown).map((row) => {
      const line = document.createElement("tr");
      line.append(...row.map((value, i) => element("td", words(value), number[i] ? "n" : value === false ? "bad" : "")));
      return line;
    }));
    document.getElementById("count").textContent = `${rows.length} of ${all.rows.length}`;
    more.hidden = rows.length <= shown;
  };
  flags.forEach((name) => {
    const label = document.createElement("label"), tick = document.createElement("input");
    tick.type = "checkbox";
    tick.addEventListener("change", () => { tick.checked ? wanted.add(name) : wanted.delete(name); fill(); });
    label.append(tick, " " + name + " ");
    document.getElementById("flags").append(label);
  });
  find.addEventListener("input", () => { shown = STEP; fill(); });
  more.addEventListener("click", () => { shown += 5 * STEP; fill(); });
  fill();
})();
