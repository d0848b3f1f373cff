"use strict";
// Maps: pictures on a grid, by likeness, to be dragged and zoomed.  It uses what app.js has, which is loaded behind it.
// What a map needs is in a script of its own, which is loaded when the map is first shown.

const DIM = 0.14;
const NAMED = 118;  // pixels that a region with a name takes, at least
const SHARP = 132;  // pixels of a cell from which on its own image is shown, and not the small one

const maps = new Map();
function loadMap(script, place) {
  if (!maps.has(script)) {
    maps.set(script, new Promise((done, failed) => {
      const made = element("script", { src: script });
      made.onload = () => done(window.ATLAS.maps[place]);
      made.onerror = () => failed(new Error(`${script} is missing`));
      document.head.append(made);
    }));
  }
  return maps.get(script);
}

// What is drawn: places on the grid, each with the unit whose picture is there.
async function cellsOf(group) {
  const [record] = await Promise.all([loadMap(group.map, group.place), load(group)]);
  const shares = Uint8Array.from(atob(record.shares), (letter) => letter.charCodeAt(0));
  const items = record.cells.map(([row, column, count, photographs], i) =>
    ({ row, column, count, photographs, group, unit: group.units[i], told: record.told?.[i] ?? [] }));
  return { title: group.name, record, items, shares, photographs: record.photographs, classes: record.classes };
}

async function unitsByLikeness() {
  const { script, place } = window.ATLAS.likeness;
  const record = await loadMap(script, place);
  const ours = groups.filter((group) => group.network === 0);
  await Promise.all(ours.map(load));
  const byName = new Map(ours.map((group) => [group.name, group]));
  const items = record.units.map(([row, column, name, index]) =>
    ({ row, column, group: byName.get(record.groups[name]), unit: byName.get(record.groups[name])?.byIndex.get(index), told: [] }))
    .filter((item) => item.unit);
  return { title: "units by likeness", record, items, shares: null, photographs: [], classes: [],
    layers: record.groups.filter((name) => byName.has(name)) };
}

// One or two maps of one grid, which are moved together.
function mapView(sides, parts) {
  const grid = Math.max(...sides.map((side) => side.record.grid));
  const view = { scale: 0, x: 0, y: 0 };  // pixels of a cell; the cell at the left and at the top of what is shown
  const boards = sides.map((side) => board(side));
  const images = new Map();
  let drawnSoon = 0, chosen = null, names = true, lit = sides.map(() => null);

  function board(side) {
    const canvas = element("canvas", { tabindex: 0, class: "map", role: "application",
      "aria-label": `map of ${side.title}: arrows choose a cell, plus and minus zoom, 0 shows all, Enter opens the cell` });
    const byPlace = new Map(side.items.map((item) => [item.row * grid + item.column, item]));
    return { side, canvas, byPlace };
  }

  function image(file) {
    if (!images.has(file)) {
      const made = new Image();
      made.onload = soon;
      made.src = file;
      images.set(file, made);
    }
    const made = images.get(file);
    return made.complete && made.naturalWidth ? made : null;
  }

  const soon = () => { if (!drawnSoon) drawnSoon = requestAnimationFrame(() => { drawnSoon = 0; draw(); }); };
  const sizeOf = (canvas) => [canvas.clientWidth, canvas.clientHeight];
  const whole = () => {
    const [wide, high] = sizeOf(boards[0].canvas);
    view.scale = Math.min(wide, high) / grid;
    view.x = (grid - wide / view.scale) / 2;
    view.y = (grid - high / view.scale) / 2;
    soon();
  };

  function keep() {
    const [wide, high] = sizeOf(boards[0].canvas);
    view.scale = Math.min(512, Math.max(Math.min(wide, high) / grid, view.scale));
    for (const [axis, length] of [["x", wide / view.scale], ["y", high / view.scale]]) {
      view[axis] = length >= grid ? (grid - length) / 2 : Math.min(grid - length, Math.max(0, view[axis]));
    }
    soon();
  }

  function zoom(times, px, py) {
    const [wide, high] = sizeOf(boards[0].canvas);
    const [cx, cy] = [px ?? wide / 2, py ?? high / 2];
    const at = [view.x + cx / view.scale, view.y + cy / view.scale];
    view.scale *= times;
    keep();
    view.x = at[0] - cx / view.scale;
    view.y = at[1] - cy / view.scale;
    keep();
  }

  function draw() {
    boards.forEach(({ side, canvas }, number) => {
      const [wide, high] = sizeOf(canvas), dense = devicePixelRatio || 1;
      if (canvas.width !== Math.round(wide * dense) || canvas.height !== Math.round(high * dense)) {
        canvas.width = Math.round(wide * dense);
        canvas.height = Math.round(high * dense);
      }
      const context = canvas.getContext("2d");
      context.setTransform(dense, 0, 0, dense, 0, 0);
      context.clearRect(0, 0, wide, high);
      side.items.forEach((item, i) => {
        const x = (item.column - view.x) * view.scale, y = (item.row - view.y) * view.scale;
        if (x < -view.scale || y < -view.scale || x > wide || y > high) return;
        const strength = lit[number] ? lit[number](item, i) : 1;
        context.globalAlpha = DIM + (1 - DIM) * strength;
        drawItem(context, item, x, y);
        context.globalAlpha = 1;
        if (chosen && item.row === chosen.row && item.column === chosen.column) {
          context.lineWidth = 3;
          context.strokeStyle = getComputedStyle(canvas).color;
          context.strokeRect(x + 1, y + 1, view.scale - 2, view.scale - 2);
        }
      });
      if (names) drawNames(context, side, wide, high);
    });
    parts.onMove?.(view, grid);
  }

  function drawItem(context, item, x, y) {
    const { group, unit } = item, gap = Math.min(2, view.scale / 24), side = view.scale - gap;
    const own = view.scale >= SHARP ? image(link(unit.files[0])) : null;
    if (own) return context.drawImage(own, x, y, side, side);
    const per = thumb.columns * thumb.rows, within = unit.place % per;
    const sheet = image(group.sheets[Math.floor(unit.place / per)]);
    if (!sheet) return undefined;
    return context.drawImage(sheet, (within % thumb.columns) * thumb.side, Math.floor(within / thumb.columns) * thumb.side,
      thumb.side, thumb.side, x, y, side, side);
  }

  // The names of regions that are large enough now; where two would overlap, the first stays.
  function drawNames(context, side, wide, high) {
    const levels = side.record.names ?? [];
    const level = levels.find(([block]) => block * view.scale >= NAMED) ?? levels[levels.length - 1];
    if (!level) return;
    context.font = "600 13px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    const taken = [];
    for (const [row, column, name] of level[1]) {
      const words = name.length > 24 ? `${name.slice(0, 23)}…` : name;
      const x = (column - view.x) * view.scale, y = (row - view.y) * view.scale;
      const half = context.measureText(words).width / 2 + 5;
      if (x < -half || y < -12 || x > wide + half || y > high + 12) continue;
      if (taken.some(([tx, ty, th]) => Math.abs(tx - x) < th + half && Math.abs(ty - y) < 22)) continue;
      taken.push([x, y, half]);
      context.fillStyle = "#000a";
      context.fillRect(x - half, y - 10, 2 * half, 20);
      context.fillStyle = "#fff";
      context.fillText(words, x, y);
    }
  }

  function choose(item) {
    chosen = item;
    parts.onChoose(item && boards.map(({ byPlace }) => byPlace.get(item.row * grid + item.column)));
    soon();
  }

  // The nearest cell in a direction: along it first.
  function step(down, across) {
    const items = boards[0].side.items;
    if (!items.length) return;
    if (!chosen) {
      const [wide, high] = sizeOf(boards[0].canvas);
      const middle = [view.y + high / view.scale / 2, view.x + wide / view.scale / 2];
      const far = (item) => Math.hypot(item.row + 0.5 - middle[0], item.column + 0.5 - middle[1]);
      choose(items.reduce((best, item) => far(item) < far(best) ? item : best));
    } else {
      const away = (item) => {
        const along = (item.row - chosen.row) * down + (item.column - chosen.column) * across;
        const aside = Math.abs((item.row - chosen.row) * across) + Math.abs((item.column - chosen.column) * down);
        return along > 0 ? along + 2.5 * aside : Infinity;
      };
      const best = items.reduce((least, item) => away(item) < away(least) ? item : least);
      if (away(best) < Infinity) choose(best);
    }
    const [wide, high] = sizeOf(boards[0].canvas), across_ = wide / view.scale, down_ = high / view.scale;
    view.x = Math.min(chosen.column, Math.max(chosen.column + 1 - across_, view.x));
    view.y = Math.min(chosen.row, Math.max(chosen.row + 1 - down_, view.y));
    keep();
  }

  function pointers(canvas, number) {
    const down = new Map();
    let moved = 0;
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    const middle = () => {
      const all = [...down.values()];
      const [x, y] = [0, 1].map((axis) => all.reduce((sum, each) => sum + each[axis], 0) / all.length);
      return [x, y, all.length > 1 ? Math.hypot(all[0][0] - all[1][0], all[0][1] - all[1][1]) : 0];
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      if (!down.size) moved = 0;
      down.set(event.pointerId, place(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!down.has(event.pointerId)) return;
      const [x, y, wide] = middle();
      down.set(event.pointerId, place(event));
      const [nx, ny, now] = middle();
      moved += Math.abs(nx - x) + Math.abs(ny - y) + Math.abs(now - wide);
      view.x -= (nx - x) / view.scale;
      view.y -= (ny - y) / view.scale;
      if (wide && now) zoom(now / wide, nx, ny);
      else keep();
    });
    const up = (event) => {
      const there = down.get(event.pointerId);
      down.delete(event.pointerId);
      if (!there || moved > 6 || event.type === "pointercancel") return;
      const [row, column] = [view.y + there[1] / view.scale, view.x + there[0] / view.scale].map(Math.floor);
      const hit = column >= 0 && column < grid ? boards[number].byPlace.get(row * grid + column) : undefined;
      choose(hit ?? null);
    };
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
    canvas.addEventListener("dblclick", () => { if (chosen) open(); });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      zoom(Math.exp(-Math.max(-200, Math.min(200, event.deltaY)) / 400), ...place(event));
    }, { passive: false });
  }
  boards.forEach(({ canvas }, number) => pointers(canvas, number));

  function open() {
    const item = boards.map(({ byPlace }) => byPlace.get(chosen.row * grid + chosen.column)).find(Boolean);
    if (item) location.hash = address(item.group, item.unit);
  }

  const keys = (event) => {
    if (busy(event) || event.target.closest?.("button,a,summary")) return;
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (moves[event.key] && event.shiftKey) {
      view.y += moves[event.key][0];
      view.x += moves[event.key][1];
      keep();
    } else if (moves[event.key]) step(...moves[event.key]);
    else if (event.key === "+" || event.key === "=") zoom(1.5);
    else if (event.key === "-") zoom(1 / 1.5);
    else if (event.key === "0") whole();
    else if (event.key === "Enter" && chosen) open();
    else if (event.key === "Escape") location.hash = "#/";
    else return;
    event.preventDefault();
  };

  return {
    canvases: boards.map(({ canvas }) => canvas), zoom, whole, choose,
    light: (of) => { lit = of; soon(); },
    named: (value) => { names = value; soon(); },
    begin: () => {
      const resized = () => keep();
      addEventListener("resize", resized);
      document.addEventListener("keydown", keys);
      whole();
      return () => { removeEventListener("resize", resized); document.removeEventListener("keydown", keys); };
    },
  };
}

// A page of one map, or of two side by side on one layout.
async function mapPage(mapped, up, list) {
  const sides = await Promise.all(mapped);
  const { record } = sides[0];
  const about = element("div", { id: "cell", role: "status" },
    element("p", { class: "faint" }, "Drag and zoom; choose a cell by a click or by the arrow keys."));
  const view = mapView(sides, { onChoose: (items) => about.replaceChildren(...told(items)) });

  function told(items) {
    if (!items) return [element("p", { class: "faint" }, "No cell is chosen.")];
    return items.map((item, number) => item && element("div", { class: "told" },
      element("a", { href: address(item.group, item.unit) }, small(item.group, item.unit, 96)),
      element("div", {}, element("a", { href: address(item.group, item.unit) }, item.unit.label),
        item.count ? element("p", { class: "faint" }, `${item.count} activations of ${item.photographs} photographs`) : null,
        item.told.length ? classesTold(item.told.slice(0, 5)) : null,
        sides[number].photographs.length ? within(sides[number], item) : null))).filter(Boolean);
  }

  function within(side, item) {
    const at = side.items.indexOf(item);
    const names_ = side.photographs.filter(([, , at_]) => at_.includes(at)).map(([name]) => name);
    return element("details", {}, element("summary", {}, `its ${names_.length} photographs`),
      element("p", { class: "faint" }, names_.join(", ")));
  }

  const tools = element("div", { class: "tools" });
  const say = element("span", { class: "faint", id: "lit", role: "status" });
  const classes = [...new Set(sides.flatMap((side) => side.classes))].sort((a, b) => a.localeCompare(b));
  const byClass = field("class", "classes", classes);
  const byPhotograph = field("photograph", "photographs", sides[0].photographs.map(([name]) => name));
  const layers = sides[0].layers?.length > 1 ? field("layer", "layers", sides[0].layers) : null;

  function field(label, id, values) {
    if (!values.length) return null;
    const input = element("input", { list: `all-${id}`, "aria-label": label, id: `by-${label}`, type: "search", placeholder: "any" });
    input.addEventListener("change", light);
    const options = element("datalist", { id: `all-${id}` }, values.map((value) => element("option", { value })));
    return element("label", {}, `${label} `, input, options);
  }
  const valueOf = (made) => made?.querySelector("input").value.trim() ?? "";

  function light() {
    const [name, photograph, layer_] = [byClass, byPhotograph, layers].map(valueOf);
    say.textContent = "";
    view.light(sides.map((side) => {
      const at = side.classes.findIndex((each) => each === name);
      const shot = side.photographs.find(([each]) => each === photograph);
      if (name && at < 0) say.textContent = `no cell is much of ${name}. `;
      if (photograph && !shot) say.textContent = `${photograph} is none of the map's photographs. `;
      const there = shot && new Set(shot[2]);
      if (shot) say.textContent += `${photograph}: ${there.size ? `in ${there.size} ${there.size === 1 ? "cell" : "cells"}` : "in no cell that is shown"}. `;
      if (at < 0 && !shot && !layer_) return null;
      return (item, i) => (at < 0 ? 1 : side.shares[at * side.items.length + i] / 255) *
        (!there || there.has(i) ? 1 : 0) * (!layer_ || item.group.name === layer_ ? 1 : 0);
    }));
  }

  const dropped = async (event) => {
    event.preventDefault();
    const file = event.dataTransfer?.files?.[0];
    if (!file || !byPhotograph) return;
    const known = await knownAs(file, sides[0].photographs);
    byPhotograph.querySelector("input").value = known ?? file.name;
    light();
  };
  const over = (event) => event.preventDefault();
  const named_ = record.names?.length ? element("label", {}, element("input", { type: "checkbox", id: "named", checked: "" }), " names") : null;
  named_?.querySelector("input").addEventListener("change", (event) => view.named(event.target.checked));
  tools.append(...[
    button("+", () => view.zoom(1.5), { "aria-label": "zoom in", id: "in" }), button("−", () => view.zoom(1 / 1.5), { "aria-label": "zoom out", id: "out" }),
    button("All", view.whole, { id: "all" }), byClass, byPhotograph, layers, named_, say].filter(Boolean));
  const shownNow = [
    steps(null, up, null),
    element("h1", {}, sides.map((side) => side.title).join(" · ")),
    element("p", { class: "faint" }, `${record.facts[0]}.`),
    tools,
    element("div", { class: `maps${sides.length > 1 ? " two" : ""}` }, view.canvases.map((canvas, number) =>
      element("figure", {}, canvas, sides.length > 1 ? element("figcaption", {}, networks[number].name, ": ", sides[number].title) : null))),
    byPhotograph ? element("p", { class: "faint" }, "Drop one of the map's photographs here: its cells light up. It is not sent anywhere.") : null,
    about,
    element("details", {}, element("summary", {}, "How it was made"), sides.map((side) =>
      element("ul", { class: "faint" }, side.record.facts.slice(1).map((fact) => element("li", {}, fact)),
        side.record.unattributed ? element("li", {}, `no classes: ${side.record.unattributed}`) : null))),
    list ? element("p", {}, element("a", { href: list }, "all cells as a list")) : null].filter(Boolean);
  return [shownNow, () => {
    addEventListener("dragover", over);
    addEventListener("drop", dropped);
    const end = view.begin();
    return () => { removeEventListener("dragover", over); removeEventListener("drop", dropped); end(); };
  }];
}

// The name of the map's photograph that a file is, by its bytes where the browser tells, or else by its name.
async function knownAs(file, photographs) {
  try {
    const bytes = await crypto.subtle.digest("SHA-256", await file.arrayBuffer());
    const digest = [...new Uint8Array(bytes)].map((each) => each.toString(16).padStart(2, "0")).join("").slice(0, 16);
    const same = photographs.find(([, known]) => known === digest);
    if (same) return same[0];
  } catch { /* it does not tell */ }
  return photographs.find(([name]) => name === file.name)?.[0];
}

const classesTold = (told) => element("table", {}, told.map(([name, value]) =>
  element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, shown(value)))));

// What a cell's own page says of it.
async function cellFacts(group, unit) {
  if (!group.map) return null;
  const side = await cellsOf(group);
  const item = side.items.find((each) => each.unit === unit);
  return [element("p", { class: "faint" }, `The mean of ${item.count} activations of ${item.photographs} photographs.`),
    item.told.length ? [element("h2", {}, "Classes that it speaks for"), classesTold(item.told)] : null].flat();
}
