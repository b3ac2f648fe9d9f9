"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const all = (query, root = document) => [...root.querySelectorAll(query)];
  const make = (name, text = "", kind = "") => {
    const made = document.createElement(name);
    made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };
  const ask = async (path, body) => {
    const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
    let answer;
    try {
      answer = await fetch(path, options);
    } catch {
      throw new Error("The server does not answer; is it still running?");
    }
    const said = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(said.error || `The server answered ${answer.status}.`);
    return said;
  };

  // ---- what to do
  let kind = "sample";
  const tabs = all("[role=tab]");
  const GO = { sample: "Generate", discover: "Discover", predict: "Predict", evaluate: "Evaluate" };
  const choose = (name, focus = false) => {
    kind = name;
    tabs.forEach((one) => {
      const own = one.dataset.kind === name;
      one.setAttribute("aria-selected", String(own));
      one.tabIndex = own ? 0 : -1;
      if (own && focus) one.focus();
      if (own) $("form").setAttribute("aria-labelledby", one.id);
    });
    all("[data-for]").forEach((one) => { one.hidden = !one.dataset.for.split(" ").includes(name); });
    $("go").textContent = GO[name];
    const lacking = name === "discover" && document.body.dataset.reference === "no";
    $("fault").textContent = lacking ? "A discovery compares with known phases: start the page with reference=<file>, such as crystalgfn app reference=train.parquet." : "";
    goal();
  };
  tabs.forEach((one, i) => {
    one.addEventListener("click", () => choose(one.dataset.kind));
    one.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) choose(tabs[(i + step + tabs.length) % tabs.length].dataset.kind, true);
    });
  });
  const goal = () => {
    const own = $("goal").value, gap = Number($("gap").value);
    $("gap_field").hidden = own !== "gap";
    $("seconds_field").hidden = !(own.startsWith("reward:") || (own === "gap" && Math.abs(gap - 1.34) > 1e-9));
  };
  $("goal").addEventListener("change", goal);
  $("gap").addEventListener("input", goal);

  // ---- elements
  const marks = new Map(), buttons = all(".element"), NEXT = { "": "must", must: "may", may: "not", not: "" };
  const WORDS = { must: "must occur", may: "may occur", not: "must not occur", "": "no mark" };
  const paint = () => {
    const open = document.querySelector("[name=others]:checked").value === "may";
    buttons.forEach((one) => {
      const mark = marks.get(one.dataset.symbol) || "";
      one.dataset.mark = mark;
      one.setAttribute("aria-label", `${one.dataset.symbol}: ${one.disabled ? "not available" : WORDS[mark]}`);
    });
    const of = (mark) => [...marks].filter(([, own]) => own === mark).map(([symbol]) => symbol);
    const must = of("must"), may = of("may"), not = of("not");
    const parts = [];
    if (must.length) parts.push(`Every crystal holds ${must.join(", ")}.`);
    if (may.length) parts.push(`${may.join(", ")} may occur.`);
    if (not.length) parts.push(`No ${not.join(", ")}.`);
    if (!must.length && !may.length) parts.push("No element is asked for: all may occur.");
    else parts.push(open ? "All others may occur." : "No others.");
    $("sentence").textContent = parts.join(" ");
    $("table").classList.toggle("open", open || !(must.length || may.length));
  };
  const mark = (symbol, value) => { value ? marks.set(symbol, value) : marks.delete(symbol); paint(); };
  const KEYS = { m: "must", y: "may", n: "not", Delete: "", Backspace: "" };
  const beside = (one, down, right) => {
    const row = Number(one.dataset.row), column = Number(one.dataset.column);
    const free = buttons.filter((other) => !other.disabled);
    const same = free.filter((other) => (right ? Number(other.dataset.row) === row && (Number(other.dataset.column) - column) * right > 0
      : Number(other.dataset.column) === column && (Number(other.dataset.row) - row) * down > 0));
    const distance = (other) => Math.abs(other.dataset.row - row) + Math.abs(other.dataset.column - column);
    return same.sort((a, b) => distance(a) - distance(b))[0];
  };
  buttons.forEach((one) => {
    const symbol = one.dataset.symbol;
    one.addEventListener("click", () => mark(symbol, NEXT[marks.get(symbol) || ""]));
    one.addEventListener("focus", () => buttons.forEach((other) => { other.tabIndex = other === one ? 0 : -1; }));
    one.addEventListener("keydown", (event) => {
      const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (move) { event.preventDefault(); beside(one, ...move)?.focus(); }
      const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
      if (key in KEYS && !event.ctrlKey && !event.metaKey) { event.preventDefault(); mark(symbol, KEYS[key]); }
    });
  });
  $("clear").addEventListener("click", () => { marks.clear(); paint(); });
  all("[name=others]").forEach((one) => one.addEventListener("change", paint));

  // ---- a prompt
  const listed = (id) => $(id).value.split(/[,;]\s*|\s+(?=[A-Z])/).map((one) => one.trim()).filter(Boolean);
  const FORMULA = /^[ABCDEGMRTXYZ0-9]+$/;
  const fillIn = async () => {
    const said = $("said");
    said.replaceChildren();
    if (!$("prompt").value.trim()) return;
    let found;
    try {
      found = await ask("api/prompt", { text: $("prompt").value });
    } catch (error) {
      said.append(make("p", error.message, "fault"));
      return;
    }
    const form = found.form;
    marks.clear();
    for (const [name, value] of [["excluded", "not"], ["may", "may"], ["must", "must"]]) (form[name] || []).forEach((one) => marks.set(one, value));
    all("[name=others]").forEach((one) => { one.checked = (one.value === "may") === form.others; });
    const put = (id, value) => { $(id).value = value === undefined ? "" : String(value); };
    for (const name of ["any_of", "space_groups", "prototypes"]) put(name, (form[name] || []).join(", "));
    put("formulas", [...(form.formulas || []), ...(form.anonymous_formulas || [])].join(", "));
    put("point_symmetries", all("#point_symmetries option").map((one) => one.value).find((one) => one && one.split(",").sort().join() === [...(form.point_symmetries || [])].sort().join()) || "");
    for (const name of ["n_elements", "n_atoms"]) { put(`${name}_low`, form[name]?.[0]); put(`${name}_high`, form[name]?.[1]); }
    all("[name=system]").forEach((one) => { one.checked = (form.crystal_systems || []).includes(one.value); });
    put("goal", form.goal || "stable");
    if (form.gap) put("gap", form.gap);
    if (form.n) put("n", form.n);
    paint();
    goal();
    const list = make("ul");
    found.understood.forEach(([words, meaning]) => { const item = make("li"); item.append(make("b", words), ` ${meaning}`); list.append(item); });
    said.append(list);
    if (found.not_understood.length) said.append(make("p", `Not understood: ${found.not_understood.join("; ")}`, "unread"));
  };
  $("fill").addEventListener("click", fillIn);
  $("prompt").addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); fillIn(); } });

  // ---- files
  let uploads = [];
  const take = async (files) => {
    uploads = await Promise.all([...files].map((file) => new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve({ name: file.name, content: String(reader.result).split(",")[1] || "" });
      reader.onerror = () => reject(new Error(`${file.name} cannot be read`));
      reader.readAsDataURL(file);
    })));
    $("chosen").replaceChildren(...uploads.slice(0, 10).map((one) => make("li", one.name)));
    if (uploads.length > 10) $("chosen").append(make("li", `and ${uploads.length - 10} more`));
  };
  const taken = (files) => take(files).catch((error) => { $("fault").textContent = error.message; });
  $("files").addEventListener("change", () => taken($("files").files));
  for (const name of ["dragover", "drop"]) $("drop").addEventListener(name, (event) => {
    event.preventDefault();
    if (name === "drop") taken(event.dataTransfer.files);
  });

  // ---- start a run
  const range = (name, most) => {
    const low = $(`${name}_low`).value, high = $(`${name}_high`).value;
    return low || high ? [Number(low || 1), Number(high || most)] : null;
  };
  const space = () => {
    const of = (value) => [...marks].filter(([, own]) => own === value).map(([symbol]) => symbol);
    const forms = listed("formulas");
    const open = document.querySelector("[name=others]:checked").value === "may";
    return {
      must: of("must"), may: of("may"), excluded: of("not"),
      others: open || !(of("must").length || of("may").length), any_of: listed("any_of"),
      formulas: forms.filter((one) => !FORMULA.test(one)), anonymous_formulas: forms.filter((one) => FORMULA.test(one)),
      prototypes: $("prototypes").value.split(/[,;]/).map((one) => one.trim()).filter(Boolean),
      space_groups: $("space_groups").value.split(/[,;]/).map((one) => one.trim()).filter(Boolean),
      crystal_systems: all("[name=system]:checked").map((one) => one.value),
      point_symmetries: $("point_symmetries").value.split(",").filter(Boolean),
      n_elements: range("n_elements", 5), n_atoms: range("n_atoms", 20),
    };
  };
  const request = () => {
    const seed = Number($("seed").value);
    const wanted = { goal: $("goal").value, gap: Number($("gap").value), seconds: Number($("seconds").value) };
    if (kind === "sample") return { kind, space: space(), goal: wanted, n: Number($("n").value), adapt: $("adapt").checked, seed };
    if (kind === "discover") return { kind, space: space(), goal: wanted, budget: Number($("budget").value), seed };
    if (kind === "predict") return { kind, formula: $("formula").value.trim(), space_group: $("space_group").value.trim() || null, n: Number($("n_structures").value), seed };
    return { kind, files: uploads, compare: $("compare").checked };
  };
  let sending = false;
  $("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (sending) return; // pressed twice
    $("fault").textContent = "";
    sending = true;
    $("go").setAttribute("aria-busy", "true"); // not disabled, which would take the focus away
    try {
      const made = await ask("api/runs", request());
      location.hash = `run=${made.id}`;
      await refresh();
      if (window.innerWidth < 1000) $("results").scrollIntoView({ behavior: "smooth" });
    } catch (error) {
      $("fault").textContent = error.message;
    } finally {
      sending = false;
      $("go").removeAttribute("aria-busy");
    }
  });

  // ---- runs
  let current = null, drawn = "", timer = 0;
  const shownRun = () => /^#run=(.+)$/.exec(location.hash)?.[1];
  const path = (id, ...more) => ["api/runs", encodeURIComponent(id), ...more.map(encodeURIComponent)].join("/");
  const when = (seconds) => (seconds === null ? "" : seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`);
  const stateWords = (one) => (one.state === "queued" ? (one.ahead ? `${one.ahead} before it` : "next") : one.state);
  const list = (runs) => {
    $("welcome").hidden = runs.length > 0;
    $("runs").replaceChildren(...runs.map((one) => {
      const item = make("a", "", `run ${one.state}`);
      item.href = `#run=${one.id}`;
      if (one.id === shownRun()) item.setAttribute("aria-current", "true");
      item.append(make("b", one.title), make("span", `${GO[one.kind] || one.kind} · ${stateWords(one)}${one.state === "queued" ? "" : ` · ${when(one.seconds)}`}`));
      return item;
    }));
  };
  const formula = (text) => {
    const made = document.createDocumentFragment();
    for (const part of text.split(/(\d+)/)) made.append(/^\d+$/.test(part) ? make("sub", part) : part);
    return made;
  };
  const number = (value, digits = 3) => (value === null || value === undefined ? "" : Number(value).toFixed(digits));
  const PROPERTY = { band_gap: "band gap", ionic_conductivity: "conductivity", density: "density", formation_energy: "formation energy" };

  const watch = new IntersectionObserver((seen) => {
    for (const one of seen) if (one.isIntersecting) { watch.unobserve(one.target); show3d(one.target); }
  }, { rootMargin: "300px" });
  const show3d = async (canvas) => {
    try {
      const scene = await ask(canvas.dataset.path);
      new Viewer(canvas, scene);
      const key = make("div", "", "key");
      scene.elements.forEach(([symbol, colour]) => {
        const dot = make("i");
        dot.style.background = colour;
        const item = make("span");
        item.append(dot, symbol);
        key.append(item);
      });
      canvas.after(key);
    } catch (error) {
      canvas.replaceWith(make("div", error.message, "empty"));
    }
  };
  const svg = async (address) => {
    const answer = await fetch(address);
    if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error || "It cannot be drawn.");
    return document.importNode(new DOMParser().parseFromString(await answer.text(), "image/svg+xml").documentElement, true);
  };
  const figure = (place, title, address) => {
    const box = make("figure");
    box.append(make("figcaption", title), make("p", "drawing …", "hint"));
    place.append(box);
    svg(address).then((one) => box.lastChild.replaceWith(one), (error) => { box.lastChild.textContent = error.message; });
  };
  const card = (run, one) => {
    const made = $("card").content.cloneNode(true).firstElementChild, at = (query) => made.querySelector(query);
    const name = `${one.formula}, space group ${one.space_group ?? "unknown"}`;
    at("h3").append(...(one.rank ? [make("span", one.rank, "rank")] : []), formula(one.formula));
    at(".symmetry").textContent = [one.symbol && `${one.symbol} (${one.space_group})`, one.prototype, one.n_atoms && `${one.n_atoms} atoms`].filter(Boolean).join(" · ");
    const energy = one.e_above_hull;
    if (energy !== null && energy !== undefined) {
      const level = energy <= 0.05 ? "good" : energy <= 0.1 ? "fair" : "bad";
      at(".energy").append(make("b", `${energy >= 0 ? "+" : "−"}${number(Math.abs(energy))}`, level), ` ${one.e_above_hull_std ? `± ${number(one.e_above_hull_std)} ` : ""}eV/atom above the hull`, make("small", one.energy_by === "predicted" ? "predicted, not calculated" : `by ${one.energy_by}, not DFT`));
      if (energy < -0.2) at(".energy").append(make("small", "so far below: more likely an error, or known phases that the reference lacks"));
    } else if (one.probability !== null && one.probability !== undefined) {
      at(".energy").append(make("b", `${(100 * one.probability).toFixed(1)} %`), " probable among structures of this formula");
    }
    if (one.plausibility !== undefined && one.plausibility !== null) {
      at(".meter i").style.width = `${100 * one.plausibility}%`;
      at(".share").textContent = `plausibility ${number(one.plausibility, 2)}`;
      at(".reasons").textContent = one.reasons || "nothing unusual in stoichiometry or charges";
    } else at(".plausible").remove();
    if (one.known) {
      const fresh = one.known === "new" || one.known.startsWith("formula not");
      at(".known").append(make("span", one.known, fresh ? "badge new" : "badge"));
      if (one.nearest_phase && fresh) at(".known").append(` nearest ${one.nearest_phase}`);
    }
    if (one.short) at(".known").append(make("span", "atoms too close: discard", "badge bad"));
    const more = one.properties.filter(([key]) => !(key === "formation_energy" && energy === undefined)).map(([key, value, unit]) => `${PROPERTY[key] || key} ${number(value, 2)} ${unit}`);
    if (one.decomposition) more.push(`decomposes to ${one.decomposition}`);
    at(".more").textContent = more.join(" · ");
    const canvas = at("canvas");
    if (one.has_structure) {
      canvas.dataset.path = path(run.id, one.key, "structure.json");
      canvas.setAttribute("aria-label", `Structure of ${name}; arrow keys turn it, plus and minus zoom`);
      watch.observe(canvas);
      at(".cif").href = path(run.id, one.key, "structure.cif");
      at(".cif").setAttribute("aria-label", `CIF of ${name}`);
      at(".diagrams").setAttribute("aria-label", `Diagrams of ${name}`);
      at(".diagrams").addEventListener("click", () => {
        const place = at(".figures"), open = place.hidden;
        place.hidden = !open;
        made.classList.toggle("wide", open);
        at(".diagrams").setAttribute("aria-expanded", String(open));
        if (open && !place.childElementCount) {
          if (run.phases) figure(place, "Phase diagram", path(run.id, one.key, "phases.svg"));
          figure(place, "Powder pattern", path(run.id, one.key, "pattern.svg"));
        }
      });
    } else {
      canvas.replaceWith(make("div", "atoms are being placed", "empty"));
      at(".actions").remove();
    }
    return made;
  };
  const link = (words, address, save = true) => {
    const made = make("a", words);
    made.href = address;
    if (save) made.setAttribute("download", "");
    else made.target = "_blank";
    return made;
  };
  const fill = (run) => {
    current = run;
    $("run").hidden = false;
    $("title").textContent = run.title;
    $("state").textContent = stateWords(run);
    $("state").className = `badge ${run.state}`;
    $("stop").hidden = !["queued", "running"].includes(run.state);
    $("words").textContent = run.words ? `${run.words[0].toUpperCase()}${run.words.slice(1)}` : "";
    const busy = run.state === "running", bar = $("bar");
    $("progress").hidden = !busy;
    const progress = run.progress;
    if (progress && progress.total) { bar.value = progress.done / progress.total; } else bar.removeAttribute("value");
    $("step").textContent = busy ? `${progress?.message || "starting"}${progress?.total ? ` · ${progress.done} of ${progress.total}` : ""} · ${when(run.seconds)}` : "";
    $("command").textContent = run.commands.join("\n");
    $("python").textContent = run.python;
    $("python").hidden = !run.python;
    $("log").hidden = !run.log;
    if ($("lines").textContent !== run.log) $("lines").textContent = run.log;
    const placed = run.candidates.filter((one) => one.has_structure).length;
    $("downloads").replaceChildren(
      ...(placed ? [link(`CIFs (${placed})`, path(run.id, "cifs.zip"))] : []),
      ...(run.table ? [link("Table", path(run.id, "table.csv"))] : []),
      ...(run.report ? [link("Report", path(run.id, "report.html"), false)] : []));
    $("headline").replaceChildren(...run.headline.slice(0, 12).map((one) => {
      const made = make("div", "", `figure ${one.level}`);
      made.append(make("b", one.figure), make("span", one.name), make("small", one.detail));
      return made;
    }));
    const state = JSON.stringify([run.id, run.candidates]);
    if (state === drawn) return; // cards that are being looked at stay
    drawn = state;
    $("cards").replaceChildren(...run.candidates.map((one) => card(run, one)));
    if (!run.candidates.length && !busy && run.state === "done") $("cards").append(make("p", "This run found nothing to show.", "hint"));
  };
  const refresh = async () => {
    clearTimeout(timer);
    let busy = false;
    try {
      const runs = await ask("api/runs");
      list(runs);
      const id = shownRun() || runs[0]?.id;
      const own = runs.find((one) => one.id === id);
      if (own && !shownRun()) history.replaceState(null, "", `#run=${id}`);
      busy = runs.some((one) => ["queued", "running"].includes(one.state));
      if (own && (current?.id !== id || busy || current?.state !== own.state)) fill(await ask(path(id)));
      if (!own) $("run").hidden = true;
    } catch (error) {
      $("words").textContent = error.message;
    }
    timer = setTimeout(refresh, busy ? 1500 : 6000);
  };
  $("stop").addEventListener("click", async () => {
    try { await ask(path(current.id, "stop"), {}); } catch (error) { $("words").textContent = error.message; }
    refresh();
  });
  window.addEventListener("hashchange", refresh);
  choose("sample");
  paint();
  refresh();
})();
