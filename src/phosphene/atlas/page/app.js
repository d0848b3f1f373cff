"use strict";
// The atlas's page.  data.js has the networks and their groups of units; the units of a group are in a script of their
// own, which is loaded when the group is first shown, since a page from the file system may not fetch.

const main = document.getElementById("main");
const query = document.getElementById("query");
const found = document.getElementById("found");
const { networks, groups, columns, thumb, film, pairs, matches, title } = window.ATLAS;
const [network, other] = networks;
const MEANING = {
  judged: "other networks' probability of the class",
  top1: "other networks whose first guess it is",
  probability: "the network's own probability",
  objective: "activation",
  robustness: "views that keep it",
  retained: "activation that views retain",
  rank: "rank in its layer on its own image",
  explanation: "explanation score of its image (chance 0.5)",
  explanation_together: "explanation score of its images together",
  explanation_best: "explanation score of its best photograph",
  explanation_nine: "explanation score of nine photographs",
  path_similarity: "path similarity (1: as photographs of it go; 0: as any)",
  clarity: "clarity",
  redundancy: "redundancy",
  polysemanticity: "polysemanticity",
  monosemanticity: "monosemanticity",
  mis: "machine interpretability score",
  slope: "slope of the spectrum",
  saturated: "saturated values",
  steps: "steps",
};
const EXPLAINED = ["explanation", "explanation_together", "explanation_best", "explanation_nine", "path_similarity", "clarity",
  "redundancy", "polysemanticity", "monosemanticity", "mis"];
const SCORES = ["judged", "probability", "robustness", "retained", "rank", "objective", ...EXPLAINED];
const SHARES = new Set(["judged", "top1", "probability", "robustness", "retained", "saturated"]);
const LOW_IS_GOOD = new Set(["rank", "index", "redundancy", "polysemanticity"]);
const spoken = (name) => name.replaceAll("_", " ");
const BESIDE = "~", LIKENESS = "~~";
const calm = matchMedia("(prefers-reduced-motion: reduce)");
let leave = () => {};
let visits = 0;

const home = document.getElementById("home");
home.textContent = window.ATLAS.named ? title : networks.map((each) => each.name).join(" · ");
if (other) document.getElementById("search").before(element("a", { href: `#/${BESIDE}`, class: "tab" }, "side by side"));

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined) continue;
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

function drawing(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function load(group) {
  if (group.units) return Promise.resolve(group);
  return new Promise((done, failed) => {
    const script = element("script", { src: group.script });
    script.onload = () => {
      group.units = window.ATLAS.units[group.place].map((row) =>
        Object.fromEntries(columns.map((column, i) => [column, row[i]])));
      group.units.forEach((unit, place) => { unit.place = place; });
      group.byIndex = new Map(group.units.map((unit) => [unit.index, unit]));
      done(group);
    };
    script.onerror = () => failed(new Error(`${group.script} is missing`));
    document.head.append(script);
  });
}

// Small images.

function picture(group, place, side, words, file) {
  const perSheet = thumb.columns * thumb.rows;
  const sheet = Math.floor(place / perSheet), within = place % perSheet;
  const x = within % thumb.columns, y = Math.floor(within / thumb.columns);
  const rows = Math.ceil(Math.min(perSheet, group.count - sheet * perSheet) / thumb.columns);
  const made = element("span", { class: "thumb", role: "img", "aria-label": words });
  // Where the small image would be blurred the unit's own is laid over it.
  const [own, cover, middle] = file && side > thumb.side ? [`url("${link(file)}"),`, "cover,", "center,"] : ["", "", ""];
  made.style.cssText = `width:${side}px;height:${side}px;background-image:${own}url("${group.sheets[sheet]}");` +
    `background-size:${cover}${thumb.columns * side}px ${rows * side}px;` +
    `background-position:${middle}${-x * side}px ${-y * side}px`;
  return made;
}

const badge = () => element("span", { class: "badge" }, "dead");
function small(group, unit, side) {
  const made = picture(group, unit.place, side, `image of ${unit.label}${unit.dead ? ", a dead unit" : ""}`, unit.files[0]);
  if (unit.dead) made.append(badge());
  return made;
}
const named = (unit) => element("span", {}, unit.short);
const near = (group, unit) =>
  element("a", { href: address(group, unit), title: unit.label, class: "near" }, small(group, unit, 72), named(unit));

const link = (file) => file.split("/").map(encodeURIComponent).join("/");
const page = (group) => `#/${encodeURIComponent(group.key)}`;
const address = (group, unit) => `${page(group)}/${unit.index}`;
const beside = (left, right, index) =>
  `#/${[BESIDE, left.key, right.key, index].filter((part) => part !== undefined).map(encodeURIComponent).join("/")}`;
const keyed = (key) => groups.find((group) => group.key === key);
const shown = (value, name) => value === null || value === undefined ? "–"
  : name === "rank" ? String(value)
  : SHARES.has(name) ? `${(100 * value).toFixed(1)} %`
  : Math.abs(value) >= 1000 ? value.toPrecision(4) : String(Math.round(value * 1000) / 1000);
const withError = (value, error) => `${value.toFixed(2)} ± ${error.toFixed(2)}`;
const cells = (unit, name) => {
  const made = element("td", {}, name === "rank" && unit.rank !== null ? `${unit.rank} of ${unit.of}`
    : name === "explanation" && unit.explanation !== null ? withError(unit.explanation, unit.explanation_error)
    : shown(unit[name], name));
  if (SHARES.has(name) && unit[name] !== null) {
    made.append(element("span", { class: "bar", "aria-hidden": "true" }));
    made.lastChild.style.setProperty("--share", Math.min(1, Math.max(0, unit[name])));
  }
  return made;
};

// A page is what it shows, and what it does from then on; that gives what ends it.  All that it needs is loaded before.

// The overview.

async function overview() {
  return [networks.map((each, number) => {
    const mine = groups.filter((group) => group.network === number);
    const kinds = mine.length === 1 ? "1 group" : `${mine.length} groups`;
    return element("section", {},
      element("h1", {}, each.name),
      element("p", { class: "faint" }, `${each.images} images of ${kinds}, in the order of the network; weights ${each.weights}`),
      number === 0 && window.ATLAS.likeness
        ? element("p", {}, element("a", { href: `#/${LIKENESS}`, class: "tab" }, "map of its units by likeness")) : null,
      drawn(each, mine),
      element("ol", { class: "layers" }, mine.map((group) => element("li", {}, element("a", { href: page(group) },
        element("strong", {}, group.name),
        element("span", { class: "faint" },
          `  ${group.count} units${group.type ? `, ${group.type}` : ""}, ${group.recipe}`),
        strip(group))))),
      number === 0 && explanations.length ? element("div", { id: "in-photographs" }, element("h2", {}, "Explained photographs"),
        explainedRow(explanations.map((each) => explained(each, "", responded(each))))) : null);
  })];
}

// Some of a group's units, without its script: all of its first sheet's, evenly.
function strip(group) {
  const there = Math.min(group.count, thumb.columns * thumb.rows), count = Math.min(16, there);
  return element("div", { class: "strip" }, Array.from({ length: count }, (_, i) =>
    picture(group, Math.floor(i * there / count), 72, `an image of ${group.name}`)));
}

// A bar a layer: as high as its map, as wide as it has channels; those of the atlas lead to them.
function drawn(each, mine) {
  if (!each.layers.length) return null;
  const high = 72, gap = 3;
  const tallest = Math.max(...each.layers.map(([, , height]) => height));
  const there = new Map(mine.map((group) => [group.name, group]));
  const bars = [...each.layers];
  if (there.has("classes")) bars.push(["classes", there.get("classes").count, 1]);
  let x = 0;
  const made = bars.map(([name, channels, height]) => {
    const wide = 4 + Math.log2(channels + 1) * 1.6, tall = Math.max(5, high * Math.sqrt(height / tallest));
    const group = there.get(name);
    const bar = drawing("rect", { x, y: (high - tall) / 2, width: wide, height: tall, rx: 1.5 });
    const title = drawing("title", {});
    title.textContent = `${name}: ${channels} ${name === "classes" ? "shown" : "channels"}${group ? "" : ", not in this atlas"}`;
    bar.append(title);
    x += wide + gap;
    return group ? drawing("a", { href: page(group), "aria-label": name }, bar) : bar;
  });
  const svg = drawing("svg", { viewBox: `0 0 ${x - gap} ${high}`, class: "drawn", role: "group",
    "aria-label": `the layers of ${each.name}, from the image on the left to the classes; those of the atlas are links` });
  svg.style.maxWidth = `${Math.max(16, x / 12)}rem`;
  svg.append(...made);
  return element("figure", {}, svg, element("figcaption", { class: "faint" },
    "image → classes: a bar is a layer, as high as its map and as wide as it has channels; blue ones are here"));
}

// A layer.

const order = (sign, of) => (a, b) => {
  const [first, second] = [of(a), of(b)];
  return first === null ? (second === null ? 0 : 1) : second === null ? -1 : sign * (first - second);
};

function sorter(choices, sort, least, go, filter) {
  const select = element("select", { "aria-label": "sort by" },
    choices.map(([value, words]) => element("option", { value, selected: value === sort ? "" : null }, words)));
  const limit = element("input", { type: "number", step: "any", value: Number.isNaN(least) ? "" : least,
    "aria-label": LOW_IS_GOOD.has(sort) ? "at most" : "at least" });
  select.addEventListener("change", () => go(select.value));
  limit.addEventListener("input", () => filter(limit.value));
  return [element("label", {}, "sort by ", select), element("label", {}, LOW_IS_GOOD.has(sort) ? "at most " : "at least ", limit)];
}

// How wide a cell is, in pixels: as the reader has it, or else larger where the page is wide, as on a projector.
const SMALLEST = 64, LARGEST = 320;
let cellWidth = NaN;
function cellSize() {
  if (Number.isNaN(cellWidth)) {
    try { cellWidth = parseFloat(localStorage.getItem("phosphene cells") ?? ""); } catch { /* the browser keeps nothing */ }
  }
  return cellWidth >= SMALLEST && cellWidth <= LARGEST ? cellWidth : innerWidth >= 1700 ? 160 : thumb.side;
}

function sizer() {
  const made = element("input", { type: "range", min: SMALLEST, max: LARGEST, step: 16, value: cellSize(), id: "size",
    "aria-label": "size of the images" });
  made.addEventListener("input", () => {
    cellWidth = Number(made.value);
    try { localStorage.setItem("phosphene cells", made.value); } catch { /* the browser keeps nothing */ }
    dispatchEvent(new Event("resize"));
  });
  return element("label", { class: "size" }, "size ", made);
}

// What is done once, when nothing has been typed for a moment.
function debounced(go) {
  let timer = 0;
  const soon = (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => go(...given), 150);
  };
  soon.never = () => clearTimeout(timer);
  return soon;
}

const nameOf = (group, unit) => (group.name === "classes" ? unit.label : isNamed(unit) ? `${unit.word} ${unit.label}` : unit.label);

// A layer's units as they are filtered: by the least of the score that they are sorted by, by name, and without dead ones.
function filtered(group, sort, { least, name, dead }) {
  const limit = parseFloat(least), sign = LOW_IS_GOOD.has(sort) ? 1 : -1, words = name.trim().toLowerCase();
  return group.units
    .filter((unit) => Number.isNaN(limit) || (unit[sort] !== null && sign * unit[sort] <= sign * limit))
    .filter((unit) => (!words || nameOf(group, unit).toLowerCase().includes(words)) && !(unit.dead && dead === "0"))
    .sort(order(sign, (unit) => unit[sort]));
}

async function layer(group, parameters) {
  await load(group);
  const present = [...SCORES.filter((name) => group.units.some((unit) => unit[name] !== null)), "index"];
  const sort = present.includes(parameters.get("sort")) ? parameters.get("sort") : "index";
  const filters = Object.fromEntries(["least", "name", "dead"].map((key) => [key, parameters.get(key) ?? ""]));
  const go = (by) => {
    const now = new URLSearchParams(here().parameters);
    now.set("sort", by);
    now.delete("least");
    location.hash = `${page(group)}?${now}`;
  };
  let units = filtered(group, sort, filters), end = () => {};
  const grid = element("div", { class: "grid", id: "grid" });
  const count = element("span", { class: "faint", id: "count", role: "status" });
  const place = groups.filter((each) => each.network === group.network);
  const before = place[place.indexOf(group) - 1], after = place[place.indexOf(group) + 1];
  const plotted = present.length < 3 ? null : plot(group, () => units, present, parameters);
  const show = () => {
    end();
    units = filtered(group, sort, filters);
    count.textContent = `${units.length} of ${group.count} units`;
    plotted?.redraw();
    end = scrolled(grid, units.length, 1, (i, side) => {
      const unit = units[i];
      const words = sort === "index" || unit[sort] === null ? unit.short : `${unit.short}: ${shown(unit[sort], sort)}`;
      return [{ href: address(group, unit), title: unit.label }, [small(group, unit, side)], words];
    });
  };
  const soon = debounced(show);
  const filter = (key, value) => {
    filters[key] = value;
    keepInAddress({ [key]: value });
    soon();
  };
  const shownNow = [
    steps(before && [before.name, page(before)], [networks[group.network].name, "#/"], after && [after.name, page(after)]),
    element("h1", {}, group.name),
    element("div", { class: "tools" },
      sorter(present.map((name) => [name, spoken(name)]), sort, parseFloat(filters.least), go, (value) => filter("least", value)),
      nameFilter(group, filters.name, (value) => filter("name", value)),
      deadFilter(group, filters.dead, (value) => filter("dead", value)),
      sizer(), count),
    group.name === "classes" ? null : gameOfLayer(group),
    plotted,
    grid].filter(Boolean);
  const about = { words: `${group.count} units of ${group.name} of ${networks[group.network].name}, each by an image that excites it most.`,
    image: group.sheets[0] };
  return [shownNow, () => {
    show();
    const keys = keysLead(null, "#/", null);
    return () => { soon.never(); keys(); end(); };
  }, about];
}

function nameFilter(group, value, go) {
  if (group.name !== "classes" && !group.words) return null;
  const made = element("input", { type: "search", value, id: "name", placeholder: "any", "aria-label": "name has" });
  made.addEventListener("input", () => go(made.value));
  return element("label", {}, "name ", made);
}

function deadFilter(group, value, go) {
  const count = group.units.filter((unit) => unit.dead).length;
  if (!count) return null;
  const made = element("input", { type: "checkbox", id: "dead", checked: value === "0" ? "" : null });
  made.addEventListener("change", () => go(made.checked ? "0" : ""));
  return element("label", {}, made, ` without the ${count} dead`);
}

// The address is changed without a visit, so that the focus stays where it is.
function keepInAddress(values) {
  const [path, search] = location.hash.split("?");
  const parameters = new URLSearchParams(search ?? "");
  for (const [name, value] of Object.entries(values)) {
    if (value === null || value === "") parameters.delete(name);
    else parameters.set(name, value);
  }
  const text = parameters.toString();
  history.replaceState(null, "", text ? `${path}?${text}` : path || "#/");
}

function plot(group, unitsNow, present, parameters) {
  const named = [parameters.get("x"), parameters.get("y")], given = named.every((name) => present.includes(name));
  const first = given ? named : ["clarity", "explanation"].map((name, i) => present.includes(name) ? name : present[i]);
  const [x, y] = ["across", "up"].map((label, i) => {
    const made = element("select", { "aria-label": label }, present.map((name) =>
      element("option", { value: name, selected: name === first[i] ? "" : null }, spoken(name))));
    made.addEventListener("change", () => draw());
    return made;
  });
  const points = element("div");
  const made = element("details", { class: "plot", open: given ? "" : null }, element("summary", {}, "Plot one score against another"),
    element("div", { class: "tools" }, element("label", {}, "across ", x), element("label", {}, "up ", y)), points);
  made.redraw = () => { if (made.open) points.replaceChildren(scatter(group, unitsNow(), x.value, y.value)); };
  const draw = () => {
    made.redraw();
    keepInAddress({ x: made.open ? x.value : null, y: made.open ? y.value : null });
    dispatchEvent(new Event("resize"));  // the grid below has moved
  };
  if (given) draw();
  made.addEventListener("toggle", draw);
  return made;
}

// Some round numbers of a range.
function round(low, high) {
  const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((times) => times * power >= rough);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(6)));
}

// A point a unit, which leads to it; the arrow keys go from point to point, from left to right.
function scatter(group, units, x, y) {
  const there = units.filter((unit) => unit[x] !== null && unit[y] !== null).sort((a, b) => a[x] - b[x] || a[y] - b[y]);
  if (there.length < 2) return element("p", { class: "faint" }, `${there.length} units have both scores: expected at least two`);
  const wide = Math.max(280, Math.min(640, innerWidth - 24)), high = Math.round(200 + wide / 4);
  const left = 52, under = 44, gap = 16;
  const axis = (name, from, to) => {
    const values = there.map((unit) => unit[name]);
    const low = Math.min(...values), span = Math.max(...values) - low || 1;
    const at = (value) => from + (to - from) * (value - low) / span;
    return [at, round(low, low + span)];
  };
  const [across, below] = axis(x, left + gap, wide - gap), [up, beside] = axis(y, high - under - gap, gap);
  const text = (words, attributes) => {
    const label = drawing("text", attributes);
    label.textContent = words;
    return label;
  };
  const points = there.map((unit, i) => {
    const point = drawing("a", { href: address(group, unit), tabindex: i ? -1 : 0, "aria-label":
      `${unit.label}: ${spoken(x)} ${shown(unit[x], x)}, ${spoken(y)} ${shown(unit[y], y)}` });
    const title = drawing("title", {});
    title.textContent = point.getAttribute("aria-label");
    point.append(drawing("circle", { cx: across(unit[x]), cy: up(unit[y]), r: 5 }), title);
    return point;
  });
  const svg = drawing("svg", { viewBox: `0 0 ${wide} ${high}`, role: "group",
    "aria-label": `${spoken(y)} against ${spoken(x)} of ${there.length} units; each point is a link to its unit` },
    drawing("path", { class: "axes", d: `M${left} ${gap}V${high - under}H${wide - gap}` }),
    ...below.map((value) => text(shown(value, x), { x: across(value), y: high - under + 16, "text-anchor": "middle" })),
    ...beside.map((value) => text(shown(value, y), { x: left - 6, y: up(value) + 4, "text-anchor": "end" })),
    text(spoken(x), { x: (left + wide) / 2, y: high - 6, "text-anchor": "middle" }),
    text(spoken(y), { x: left + 6, y: gap + 2 }),
    ...points);
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    const at = points.indexOf(document.activeElement);
    if (!move || at < 0) return;
    event.preventDefault();
    event.stopPropagation();
    const next = points[Math.min(points.length - 1, Math.max(0, at + move))];
    points[at].setAttribute("tabindex", -1);
    next.setAttribute("tabindex", 0);
    next.focus();
  });
  return svg;
}

// Only the cells in view are there, so that thousands of units scroll smoothly.  A cell has so many images in a row.
function scrolled(grid, count, images, cell) {
  let side = 0, across = 0, wide = 0, high = 0, drawnNow = "";
  const draw = () => {
    const width = grid.clientWidth;
    const wanted = cellSize();
    across = Math.max(images > 1 || wanted > thumb.side ? 1 : 2, Math.floor(width / (images * (wanted + 2) + 10)));
    side = Math.min(wanted, Math.floor((width / across - 6) / images) - 2);
    const letter = Math.max(12, Math.min(20, Math.round(side / 9)));
    wide = width / across;
    high = side + 8 + Math.round(1.5 * letter);
    grid.style.fontSize = `${letter}px`;
    grid.style.height = `${Math.ceil(count / across) * high}px`;
    const top = -grid.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(top / high) - 2) * across;
    const last = Math.min(count, (Math.ceil((top + innerHeight) / high) + 2) * across);
    const now = `${first} ${last} ${width} ${side}`;
    if (drawnNow === now) return;
    drawnNow = now;
    const focused = document.activeElement?.dataset?.at;
    grid.replaceChildren(...Array.from({ length: Math.max(0, last - first) }, (_, i) => {
      const at = first + i;
      const [attributes, pictures, words] = cell(at, side);
      const made = element("a", { ...attributes, class: "cell", "data-at": at },
        element("span", { class: "pictures" }, pictures), element("span", { class: "words" }, words));
      made.style.cssText = `left:${(at % across) * wide}px;top:${Math.floor(at / across) * high}px;` +
        `width:${images * (side + 2) - 2}px`;
      return made;
    }));
    if (focused !== undefined) grid.querySelector(`[data-at="${focused}"]`)?.focus({ preventScroll: true });
  };
  const keys = (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across }[event.key];
    if (!move || busy(event)) return;
    event.preventDefault();
    const at = Number(document.activeElement?.dataset?.at ?? -move);
    const next = Math.min(count - 1, Math.max(0, at + move));
    const top = Math.floor(next / across) * high + grid.offsetTop;
    if (top < scrollY + 60 || top + side > scrollY + innerHeight) scrollTo(0, top - innerHeight / 3);
    drawnNow = "";
    draw();
    grid.querySelector(`[data-at="${next}"]`)?.focus({ preventScroll: true });
  };
  addEventListener("scroll", draw, { passive: true });
  addEventListener("resize", draw);
  document.addEventListener("keydown", keys);
  draw();
  return () => {
    removeEventListener("scroll", draw);
    removeEventListener("resize", draw);
    document.removeEventListener("keydown", keys);
  };
}

// Whether a key is for what has the focus, or goes with another key, and so is not for the page.
const busy = (event) => event.altKey || event.ctrlKey || event.metaKey || event.target.matches("input,select,textarea");

// A unit.

function steps(before, up, after) {
  return element("nav", { class: "beside", "aria-label": "beside this" },
    before ? element("a", { href: before[1], rel: "prev" }, `← ${before[0]}`) : element("span"),
    element("a", { href: up[1] }, up[0]),
    after ? element("a", { href: after[1], rel: "next" }, `${after[0]} →`) : element("span"));
}

function keysLead(before, up, after) {
  const keys = (event) => {
    if (busy(event)) return;
    if (event.key === "ArrowLeft" && before) location.hash = before;
    if (event.key === "ArrowRight" && after) location.hash = after;
    if (event.key === "Escape") location.hash = up;
  };
  document.addEventListener("keydown", keys);
  return () => document.removeEventListener("keydown", keys);
}

const large = (group, unit, id) => element("a", { href: link(unit.files[0]) },
  element("img", { src: link(unit.files[0]), alt: `image of ${unit.label}`, id, width: group.size[0], height: group.size[1] }));

async function unitPage(group, index) {
  await load(group);
  const unit = group.byIndex.get(index);
  if (!unit) return missing(`${group.name}:${index}`);
  const before = group.units[unit.place - 1], after = group.units[unit.place + 1];
  const others = Object.entries(unit.near).map(([key, indices]) => [keyed(key), indices]).filter(([each]) => each);
  const classes = groups.find((each) => each.network === group.network && each.name === "classes");
  const partner = other && (await pairOf(group, unit)), facts = await cellFacts(group, unit);
  await Promise.all([...others.map(([each]) => load(each)), unit.feeds.length && classes ? load(classes) : null]);
  const alike = others.map(([each, indices]) => [each, indices.map((one) => each.byIndex.get(one)).filter((one) => one && !one.dead)])
    .filter(([, some]) => some.length);
  const rows = [...Object.keys(MEANING)].filter((name) => unit[name] !== null)
    .map((name) => element("tr", {}, element("th", { scope: "row" }, MEANING[name]), cells(unit, name)));
  const facets = unit.files.slice(1).map((file, i) => element("a", { href: link(file) },
    element("img", { src: link(file), alt: `facet ${i + 1} of ${unit.label}`, loading: "lazy", width: group.size[0], height: group.size[1] })));
  const kept = unit.kept.map((file, i) => element("a", { href: link(file) },
    element("img", { src: link(file), alt: `${unit.label} by another recipe, ${i + 1}`, loading: "lazy", width: group.size[0], height: group.size[1] })));
  const part = (title, ...children) => [element("h2", {}, title), ...children];
  const [ascent, begin] = ascentOf(group, unit);
  const shownNow = [
    steps(before && [calledOf(group, before), address(group, before)], [group.name, page(group)],
      after && [calledOf(group, after), address(group, after)]),
    element("h1", {}, unit.label),
    element("p", { class: "faint" }, `${unit.unit} of ${networks[group.network].name}`),
    unit.dead ? element("p", { id: "is-dead" }, badge(), ` The ascent never excited it (${unit.stopped}), so its image says nothing of it.`) : null,
    element("div", { class: "unit" },
      element("div", {},
        large(group, unit, "image"),
        keeping(group, unit),
        facets.length ? element("div", { class: "facets" }, facets) : null,
        kept.length ? part("Kept, by other recipes", element("div", { class: "facets", id: "kept" }, kept)) : null,
        ascent ? part("How it came about", ascent) : null),
      element("div", {},
        partner ? element("p", {}, element("a", { href: partner, class: "tab" }, "side by side with the other network")) : null,
        facts,
        element("table", {}, rows),
        unit.frequency ? element("p", { class: "faint" }, unit.frequency[0] === 0 ? "It is on in none of the photographs."
          : `It is on in ${percent(unit.frequency[0])} of the photographs, at ${percent(unit.frequency[1])} of their positions.`) : null,
        unit.nearest.length ? part("Classes whose weights are most like its decoder vector", element("p", {},
          unit.nearest.map(([, name, cosine]) => `${name} (cosine ${cosine.toFixed(2)})`).join(", "))) : null,
        unit.explanation === null ? unscored(group) : element("p", { class: "faint" },
          `Explanation scores and scores of the unit: by ${unit.explanation_judges}, from ${unit.explanation_photographs} photographs.`),
        wordOf(unit),
        group.name === "classes" ? null : part("Which photograph excites it more?", gameOfUnit(group, unit)),
        alike.map(([each, some]) => part(titleOf(group, each), element("div", { class: "alike" },
          some.map((one) => near(each, one))))).flat(),
        unit.photographs ? part("Photographs that excite it most", photographsOf(unit)) : null,
        unit.feeds.length ? part("Classes that its image makes likelier", element("p", {}, unit.feeds.map(([one, name], i) => {
          const fed = classes?.byIndex.get(one);
          return [i ? ", " : null, fed ? element("a", { href: address(classes, fed) }, name) : name];
        }).flat())) : null,
        inPhotographs(group, unit),
        part("Made by",
          element("p", {}, `${group.recipe}, ${unit.steps} steps, ${unit.stopped}, seed ${unit.seed}`),
          element("details", {}, element("summary", {}, "the whole recipe"), element("pre", {}, group.toml)),
          ...again(group, unit))))].filter(Boolean);
  const about = { image: unit.files[0], words: `The image that excites ${unit.label} of ${networks[group.network].name} most, ` +
    `by ${group.recipe}, ${unit.steps} steps.` };
  return [shownNow, () => {
    const ends = [begin(), keysLead(before && address(group, before), page(group), after && address(group, after))];
    return () => ends.forEach((end) => end());
  }, about];
}

const percent = (share) => `${(100 * share).toPrecision(2)}%`;

const isNamed = (unit) => unit.word_score !== null && unit.word_score > unit.word_null;
const wordOf = (unit) => unit.word === null ? null : element("p", { id: "word" },
  isNamed(unit) ? ["Named ", element("strong", {}, unit.word)] : "No word names it",
  element("span", { class: "faint" }, unit.word_score === null ? `, by ${unit.word_by}: it is the same on all photographs.`
    : `, by ${unit.word_by}: the best word scores ${shown(unit.word_score)}, ${shown(unit.word_margin)} above the next; by chance up to ${shown(unit.word_null)}.`));
const unscored = (group) => {
  const why = networks[group.network].unscored;
  return why && group.name !== "classes" ? element("p", { class: "faint" }, `No explanation score: ${why}.`) : null;
};
const titleOf = (group, each) => each === group
  ? (group.name === "classes" ? "Classes that are most alike" : group.map ? "Cells of this map that are most alike"
    : "Channels of this layer that are most alike")
  : `Most alike in the layer ${group.name === "classes" || groups.indexOf(each) < groups.indexOf(group) ? "before" : "after"}, ${each.name}`;
const calledOf = (group, unit) => group.name === "classes" ? unit.short : `${group.kind} ${unit.short}`;

function photographsOf(unit) {
  const [file, names] = unit.photographs;
  const list = element("ol", {}, names.map((name) => element("li", { title: name }, name.split("/").pop())));
  list.style.gridTemplateColumns = `repeat(${names.length}, minmax(0, 1fr))`;
  const made = element("figure", { class: "top" }, element("img", { src: link(file), class: "photographs", loading: "lazy",
    alt: `photographs that excite ${unit.label} most, and what it sees of them` }), list);
  made.style.maxWidth = `${names.length * (thumb.side + 2) - 2}px`;
  return made;
}

// Explanations of photographs that the atlas keeps: the pages in which a unit is explained, and those in which it is one of
// the hidden units that carried what is.

const explanations = (window.ATLAS.explanations ?? []).map(([name, photograph, unit, label, value, probability, carriers]) =>
  ({ name, photograph, unit, label, value, probability, carriers }));
const MOST_EXPLAINED = 24;

function explained({ name, photograph }, place, words) {
  const folder = `explanations/${encodeURIComponent(name)}`;
  return element("a", { href: `${folder}/explain.html${place}`, class: "explained", title: photograph },
    element("img", { src: `${folder}/small.jpg`, alt: `map over ${photograph}`, loading: "lazy" }),
    element("span", {}, photograph), element("span", { class: "faint" }, words));
}

const responded = (each) => `${each.label}: ${each.probability === null ? shown(each.value) : percent(each.probability)}`;
const explainedRow = (all) => [element("div", { class: "explanations" }, all.slice(0, MOST_EXPLAINED)),
  all.length > MOST_EXPLAINED ? element("p", { class: "faint" }, `${MOST_EXPLAINED} of ${all.length} are shown.`) : null];

function inPhotographs(group, unit) {
  if (group.network !== 0) return null;
  const itself = explanations.filter((each) => each.unit === unit.unit).map((each) => explained(each, "", responded(each)));
  const carried = explanations.flatMap((each) => each.carriers.filter(([of]) => of === unit.unit).map((found) => [each, ...found]))
    .sort(([, , , first], [, , , second]) => Math.abs(second) - Math.abs(first))
    .map(([each, , place, share]) => explained(each, `#${place}`, `${percent(share)} of its layer, for ${each.label}`));
  const command = explaining(group, unit);
  if (!itself.length && !carried.length && !command) return null;
  return element("div", { id: "in-photographs" },
    element("h2", {}, "Where it is in a photograph"),
    itself.length ? explainedRow(itself) : null,
    carried.length ? [element("p", {}, "It is among what carried another unit:"), ...explainedRow(carried)] : null,
    command);
}

// The command that makes an explanation of a unit; null where there is none.  From a server the atlas itself may not be had.
function explaining(group, unit) {
  const root = pathOf(""), windows = root !== null && /^\/[A-Za-z]:\//.test(root);
  if (group.map || (root === null && !network.public)) return null;
  const place = root === null ? network.public : root.slice(windows ? 1 : 0).replace(/(.)\/$/, "$1");
  const words = [unit.unit, place].map((word) => shellWord(word, windows));
  if (words.includes(null)) return null;
  const rest = root === null ? `-n ${words[1]}` : `--atlas ${words[1]} --into-atlas`;
  const command = `phosphene explain PHOTOGRAPH ${words[0]} ${rest}`;
  return [element("p", { class: "faint" }, "Where it is in a photograph of yours, and which hidden units carried it there",
    root === null ? ":" : "; the atlas keeps the page, and it is linked here:"),
  element("div", { class: "copied" }, element("pre", { id: "explain-command" }, command), copying(() => command))];
}

// A word of a command; null where it cannot be one: an option, or on Windows what no quotes hold.
function shellWord(text, windows) {
  if (text.startsWith("-") || (windows && !/^[\w .,:@#=~/+*()-]+$/.test(text))) return null;
  if (/^[\w.,:@=/+-]+$/.test(text)) return text;
  return windows ? `"${text}"` : quoted(text);
}

// How an image is made again, cited and kept.

const quoted = (file) => /^[\w./+-]+$/.test(file) ? file : `'${file.replaceAll("'", "'\\''")}'`;
const plain = (text) => text.replace(/[^\w.+-]+/g, "_").replace(/^[-.]+/, "").slice(0, 120) || "image";
const downloaded = (group, unit) => `${plain(`${networks[group.network].name} ${unit.unit}`)}.png`;

// Where a file of the atlas is on this machine, if the page is read from here; null if it comes from a server.
function pathOf(file) {
  if (location.protocol !== "file:") return null;
  const path = `${decodeURIComponent(location.pathname).replace(/[^/]*$/, "")}${file}`;
  return location.host ? `//${location.host}${path}` : path;
}

function again(group, unit) {
  const path = pathOf(unit.files[0]), windows = path !== null && /^\/[A-Za-z]:\//.test(path);
  const argument = path === null ? quoted(downloaded(group, unit)) : windows ? `"${path.slice(1)}"` : quoted(path);
  const command = `phosphene again ${argument}`;
  return [element("p", { class: "faint" }, path === null
    ? "The same image again, from its file alone: download it, and in the folder where it then is:"
    : "The same image again, from its file alone, in any folder of this machine:"),
  element("div", { class: "copied" }, element("pre", { id: "command" }, command), copying(() => command))];
}

// A button that puts a text on the clipboard, or selects it where the browser does not allow that.
function copying(text, words = "Copy") {
  const made = button(words, async () => {
    try {
      await navigator.clipboard.writeText(text());
      made.textContent = "Copied";
    } catch {
      const shownText = made.parentElement.querySelector("pre");
      getSelection().selectAllChildren(shownText);
      made.textContent = "Selected";
    }
    setTimeout(() => { made.textContent = words; }, 1500);
  }, { class: "copy" });
  return made;
}

function citation(group, unit) {
  const { name, weights } = networks[group.network], at = location.protocol === "file:" ? "" : location.href;
  const by = `phosphene${unit.version ? ` ${unit.version}` : ""}`;
  const what = `${unit.label} (${unit.unit}) of ${name}`;
  const how = `Image by activation maximization: recipe ${group.recipe}, ${unit.steps} steps, seed ${unit.seed}, ${by}; weights ${weights}`;
  const text = `${what}. ${how}. In: ${title}, ${unit.year}.${at ? ` ${at}` : ""}`;
  const tex = (words) => words.replace(/[\\{}~^]|[%&$#_]/g, (mark) => ({ "\\": "\\textbackslash{}", "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}" })[mark] ?? `\\${mark}`);
  const fields = [["title", `{${tex(what)}}`], ["howpublished", tex(title)], ["note", tex(how)], ["year", String(unit.year)],
    ...(at ? [["url", at.replace(/[{}\\]/g, encodeURIComponent)]] : [])];
  const key = `phosphene_${name}_${unit.unit}`.replace(/[^A-Za-z0-9]+/g, "_").slice(0, 80);
  return [text, `@misc{${key},\n${fields.map(([field, value]) => `  ${field} = {${value}},`).join("\n")}\n}`];
}

function keeping(group, unit) {
  const told = element("div", { id: "citation" });
  const cite = button("Cite", () => {
    const open = told.childElementCount > 0;
    cite.setAttribute("aria-expanded", String(!open));
    told.replaceChildren(...open ? [] : citation(group, unit).map((text, i) => element("div", { class: "copied" },
      element("pre", { class: i ? "bibtex" : "text" }, text), copying(() => text, i ? "Copy BibTeX" : "Copy text"))));
  }, { id: "cite", "aria-expanded": "false", "aria-controls": "citation" });
  // Browsers download nothing from the file system, where the image is on this machine already.
  const here = pathOf(unit.files[0]) !== null;
  const keep = element("a", { href: link(unit.files[0]), download: here ? null : downloaded(group, unit), class: "button",
    id: "download" }, here ? "Open PNG" : "Download PNG");
  return element("div", { class: "keeping" }, element("div", { class: "tools" }, keep, cite), told);
}

// The ascent: its films, one a facet, and the objective's curve, with the step that is shown marked on it.  It is played
// once when the page opens, unless the reader wants no motion.
function ascentOf(group, unit) {
  const line = curve(unit);
  const films = unit.films.filter(Boolean);
  if (!films.length) return [line, () => () => {}];
  const longest = films.reduce((most, each) => each[1] > most[1] ? each : most);
  const stepOf = ([, frames, every, last], frame) => frame >= frames - 1 ? last : (frame + 1) * every;
  const screens = films.map(([file, frames]) => {
    const screen = element("span", { class: "film", role: "img" });
    screen.style.cssText = `background-image:url("${link(file)}");aspect-ratio:${group.size[0]}/${group.size[1]};` +
      `background-size:${100 * Math.min(film, frames)}% ${100 * Math.ceil(frames / film)}%`;
    return screen;
  });
  const last = longest[1] - 1;
  const range = element("input", { type: "range", min: 0, max: last, value: last, "aria-label": "frame of the ascent" });
  const words = element("output", { class: "faint" });
  const button = element("button", { type: "button", id: "play" });
  let timer = 0;
  const show = (frame) => {
    range.value = frame;
    films.forEach((each, i) => {
      const [, frames] = each, at = Math.min(frame, frames - 1), wide = Math.min(film, frames), high = Math.ceil(frames / film);
      const share = (place, count) => count > 1 ? 100 * place / (count - 1) : 0;
      screens[i].style.backgroundPosition = `${share(at % film, wide)}% ${share(Math.floor(at / film), high)}%`;
      screens[i].setAttribute("aria-label", `${i ? `facet ${i} of ` : ""}${unit.label} after ${stepOf(each, at)} steps`);
    });
    const step = stepOf(longest, frame);
    words.textContent = `step ${step} of ${longest[3]}`;
    range.setAttribute("aria-valuetext", words.textContent);
    line?.mark(Math.min(1, step / unit.steps));
  };
  const pause = () => {
    clearInterval(timer);
    timer = 0;
    button.textContent = "▶ Play";
  };
  const play = () => {
    if (Number(range.value) >= last) show(0);
    button.textContent = "❚❚ Pause";
    timer = setInterval(() => {
      show(Number(range.value) + 1);
      if (Number(range.value) >= last) pause();
    }, 300);
  };
  button.addEventListener("click", () => timer ? pause() : play());
  range.addEventListener("input", () => { pause(); show(Number(range.value)); });
  show(last);
  pause();
  const begin = () => {
    const loaded = new Image();
    loaded.onload = () => { if (!calm.matches && !timer && range.value === String(last)) play(); };
    loaded.src = link(films[0][0]);
    return () => { loaded.onload = null; pause(); };
  };
  return [
    element("div", { class: "ascent" },
      element("div", { class: "films" }, screens),
      element("div", { class: "controls" }, button, range, words), line),
    begin,
  ];
}

function curve(unit) {
  if (!unit.curve || unit.curve.length < 2) return null;
  const low = Math.min(...unit.curve), high = Math.max(...unit.curve), last = unit.curve.length - 1;
  const points = unit.curve.map((value, i) =>
    `${(200 * i / last).toFixed(1)},${(58 - 56 * (value - low) / (high - low || 1)).toFixed(1)}`).join(" ");
  const made = element("div", { class: "curve", role: "img",
    "aria-label": `the objective went from ${shown(unit.curve[0])} to ${shown(unit.curve[last])}` });
  const mark = drawing("line", { x1: 200, x2: 200, y1: 0, y2: 60 });
  const svg = drawing("svg", { viewBox: "0 0 200 60", preserveAspectRatio: "none" }, drawing("polyline", { points }), mark);
  made.append(svg, element("span", { class: "faint" },
    `objective over ${unit.steps} steps: ${shown(unit.curve[0])} to ${shown(unit.curve[last])}`));
  made.mark = (share) => {
    for (const end of ["x1", "x2"]) mark.setAttribute(end, 200 * share);
    mark.classList.toggle("on", share < 1);
  };
  return made;
}

// The game: shown a unit's images, which of two photographs excites it more?  A pair is answered once; the answers are
// kept under the name of the unit's pairs, which changes with its images and with the photographs.

const gameAddress = (group, unit) => `${address(group, unit)}/play`;
const answersKey = (unit) => `phosphene ${unit.trials.name}`;

// One letter a pair: 1 right, 0 wrong, - not answered yet.
function answersOf(unit) {
  const none = "-".repeat(unit.trials.pairs.length);
  let kept = null;
  try { kept = localStorage.getItem(answersKey(unit)); } catch { /* the browser keeps nothing */ }
  kept ??= unit.answers;
  return typeof kept === "string" && kept.length === none.length && /^[01-]+$/.test(kept) ? kept : none;
}

function keepAnswers(unit, answers) {
  unit.answers = answers;
  try {
    if (answers === null) localStorage.removeItem(answersKey(unit));
    else localStorage.setItem(answersKey(unit), answers);
  } catch { /* as long as the page is open it is known all the same */ }
}

const playable = (group) => group.units.filter((unit) => unit.trials);

// The person's answers to the pairs of units, and the judges' to the same.
function tally(group, units) {
  const { judges } = networks[group.network].game;
  const sum = { right: 0, answered: 0, judged: 0, units: 0 };
  for (const unit of units) {
    const answers = answersOf(unit);
    if (/[01]/.test(answers)) sum.units += 1;
    unit.trials.pairs.forEach(([, , , , guesses], i) => {
      if (answers[i] === "-") return;
      sum.answered += 1;
      sum.right += Number(answers[i]);
      sum.judged += judges.length ? guesses.reduce((total, guess) => total + guess, 0) / judges.length : 0;
    });
  }
  return sum;
}

const tenths = (value) => String(Math.round(10 * value) / 10);
function tallied(group, units) {
  const sum = tally(group, units), { judges } = networks[group.network].game;
  if (!sum.answered) return "";
  const where = units.length > 1 ? `, of ${sum.units} ${sum.units === 1 ? "unit" : "units"}` : "";
  const named = judges.length ? ` On the same pairs ${judges.join(", ")}${judges.length > 1 ? " (mean)" : ""}: ${tenths(sum.judged)}.` : "";
  return `You: ${sum.right} of ${sum.answered} right${where}.${named} By chance: ${tenths(sum.answered / 2)}.`;
}

const button = (words, go, attributes = {}) => {
  const made = element("button", { type: "button", ...attributes }, words);
  made.addEventListener("click", go);
  return made;
};

function forgetting(units, shownAgain) {
  return button("Forget my answers", () => { units.forEach((unit) => keepAnswers(unit, null)); shownAgain(); }, { class: "forget" });
}

// One of a layer's units that have pairs left to answer, another than the one given.
function another(group, unit) {
  const others = playable(group).filter((each) => each !== unit);
  const open = others.filter((each) => answersOf(each).includes("-"));
  const from = open.length ? open : others;
  return from[Math.floor(Math.random() * from.length)];
}

function gameOfLayer(group) {
  const units = playable(group);
  if (!units.length) return element("p", { class: "faint", id: "game" }, `No game: ${missingGame(group)}.`);
  const made = element("div", { class: "tools", id: "game" });
  const show = () => made.replaceChildren(...[
    button("Play", () => { location.hash = gameAddress(group, another(group)); }, { id: "play-layer" }),
    element("span", { class: "faint" }, "which of two photographs excites a unit more? "),
    element("span", {}, tallied(group, units)),
    tally(group, units).answered ? forgetting(units, show) : null].filter(Boolean));
  show();
  return made;
}

function gameOfUnit(group, unit) {
  if (!unit.trials) return element("p", { class: "faint", id: "game" }, `No game: ${missingGame(group)}.`);
  return element("p", { id: "game" }, element("a", { href: gameAddress(group, unit), class: "tab" }, "Play"),
    element("span", { class: "faint" }, ` ${tallied(group, [unit]) || "two photographs, and its image: which one?"}`));
}

const missingGame = (group) => networks[group.network].game.missing ||
  (group.units.length && playable(group).length ? "too few photographs excite this unit more than the lower half of them do"
    : "too few photographs excite a unit of this layer more than the lower half of them do");

async function gamePage(group, index) {
  await load(group);
  const unit = group.byIndex.get(index);
  if (!unit) return missing(`${group.name}:${index}`);
  const up = address(group, unit);
  const heading = element("h1", {}, `Which photograph excites ${unit.label} more?`);
  const back = steps(null, [unit.label, up], null);
  if (!unit.trials) return [[back, heading, element("p", {}, `No game: ${missingGame(group)}.`)], () => keysLead(null, up, null)];
  const { judges, photographs } = networks[group.network].game;
  const pictures = unit.files.map((file, i) => element("img", { src: link(file),
    alt: i ? `facet ${i} of ${unit.label}` : `image of ${unit.label}`, width: group.size[0], height: group.size[1] }));
  const table = element("div", { class: "choices" });
  const verdict = element("p", { id: "verdict", role: "status" });
  const score = element("p", { id: "tally", class: "faint" });
  const tools = element("div", { class: "tools" });
  let answer = () => {};

  const count = () => {
    const value = unit.explanation_together ?? unit.explanation;
    const known = value === null ? "" : ` Explanation score, over all pairs: ${shown(value)}.`;
    score.textContent = (tallied(group, [unit]) || "No pair is answered yet.") + (judges.length ? known : "");
  };
  const offerTools = (next) => {
    const other = another(group, unit);
    tools.replaceChildren(...[
      next,
      other ? button("Another unit", () => { location.hash = gameAddress(group, other); }) : null,
      /[01]/.test(answersOf(unit)) ? forgetting([unit], ask) : null].filter(Boolean));
  };
  const ask = () => {
    count();
    const open = [...answersOf(unit)].flatMap((letter, i) => letter === "-" ? [i] : []);
    verdict.textContent = "";
    verdict.className = "";
    answer = () => {};
    if (!open.length) {
      table.replaceChildren();
      verdict.textContent = `All ${unit.trials.pairs.length} pairs of this unit are answered.`;
      offerTools(null);
      return;
    }
    const at = open[Math.floor(Math.random() * open.length)];
    const [right, wrong, high, low, guesses] = unit.trials.pairs[at];
    const swapped = Math.random() < 0.5;
    const order = swapped ? [[wrong, low], [right, high]] : [[right, high], [wrong, low]];
    const place = swapped ? 1 : 0;
    const choices = order.map(([photograph], i) => button([
      element("img", { src: link(photographs[photograph]), alt: `photograph ${i + 1}` }),
      element("span", {}, String(i + 1))], () => answer(i), { class: "choice", "aria-label": `photograph ${i + 1}` }));
    answer = (chosen) => {
      answer = () => {};
      const won = chosen === place;
      const answers = answersOf(unit);
      keepAnswers(unit, answers.slice(0, at) + (won ? "1" : "0") + answers.slice(at + 1));
      choices.forEach((each, i) => {
        each.disabled = true;
        each.classList.add(i === place ? "right" : "other");
        each.lastChild.textContent = `${i + 1}: ${shown(order[i][1])}${i === chosen ? " (yours)" : ""}`;
        each.setAttribute("aria-label", `photograph ${each.lastChild.textContent}`);
      });
      const told = [0, 1].map((i) => [judges.filter((_, judge) => (guesses[judge] ? place : 1 - place) === i), i + 1])
        .filter(([names]) => names.length).map(([names, photograph]) => `${names.join(", ")} took photograph ${photograph}`);
      verdict.textContent = `${won ? "Right" : "Wrong"}: its activation is ${shown(high)} on photograph ${place + 1}, and ` +
        `${shown(low)} on the other.${told.length ? ` ${told.join("; ")}.` : ""}`;
      verdict.className = won ? "won" : "lost";
      count();
      const next = button("Next pair", ask, { id: "next" });
      offerTools(next);
      next.focus();
    };
    table.replaceChildren(...choices);
    offerTools(null);
    choices[0].focus({ preventScroll: true });
  };
  const keys = (event) => {
    if (busy(event)) return;
    if (event.key === "1" || event.key === "2") answer(Number(event.key) - 1);
    if (event.key === "Escape") location.hash = up;
  };
  const shownNow = [back, heading,
    element("p", { class: "faint" }, `${
      pictures.length > 1 ? "These are its images" : "This is its image"}. Choose by a click, or by the keys 1 and 2.`),
    element("div", { class: "game" }, element("div", { class: "shows" }, pictures), element("div", {}, table, verdict, score, tools))];
  return [shownNow, () => {
    document.addEventListener("keydown", keys);
    ask();
    return () => document.removeEventListener("keydown", keys);
  }];
}

// Two networks side by side.

// What a match says of two groups: pairs of indices with their correlation, the highest first.
const matchOf = (left, right) => matches.find(([one, two]) => one === left.key && two === right.key)?.[2];

// Units of two groups that belong together, as [left, right]: of one class, or of one index; or as matched, with how
// they correlate behind them.
async function paired(left, right) {
  await Promise.all([load(left), load(right)]);
  const matched = matchOf(left, right);
  if (matched) {
    return matched.map(([one, two, value]) => [left.byIndex.get(one), right.byIndex.get(two), value])
      .filter((pair) => pair[0] && pair[1]);
  }
  const byClass = left.name === "classes" && right.name === "classes" && pairs.length;
  if (!byClass) {
    return left.units.filter((unit) => right.byIndex.has(unit.index)).map((unit) => [unit, right.byIndex.get(unit.index)]);
  }
  return pairs.map(([one, two]) => [left.byIndex.get(one), right.byIndex.get(two)]).filter((pair) => pair[0] && pair[1]);
}

const ours = () => groups.filter((group) => group.network === 0);
const theirs = () => groups.filter((group) => group.network === 1);

// The group of the other network that one is first shown with: as matched, of the same name, or else about as deep.
function counterpart(group) {
  const match = matches.find((each) => each[group.network] === group.key && each[2].length);
  if (match) return keyed(match[1 - group.network]);
  const [mine, others] = group.network ? [theirs(), ours()] : [ours(), theirs()];
  const same = others.find((each) => each.name === group.name);
  if (same || group.name === "classes") return same;
  const layers = (list) => list.filter((each) => each.name !== "classes");
  const [from, to] = [layers(mine), layers(others)];
  return to[Math.round(from.indexOf(group) * (to.length - 1) / Math.max(1, from.length - 1))];
}

// The address of the page where a unit is beside the other network's.
async function pairOf(group, unit) {
  const partner = counterpart(group);
  if (!partner) return null;
  const [left, right] = group.network ? [partner, group] : [group, partner];
  const pair = (await paired(left, right)).find((each) => each[group.network] === unit);
  return pair ? beside(left, right, pair[0].index) : null;
}

function sides(left, right) {
  const start = ours().find((group) => group.name === "classes" && counterpart(group)) ?? ours().find(counterpart) ?? ours()[0];
  left ??= start;
  return [left, right ?? counterpart(left) ?? theirs()[0]];
}

async function besidePage(left, right, parameters) {
  const found = await paired(left, right);
  const present = SCORES.filter((name) => found.some((pair) => pair[0][name] !== null && pair[1][name] !== null));
  const matched = Boolean(matchOf(left, right));
  const choices = [...(matched ? [["match", "correlation"]] : []), ["index", "index"],
    ...present.flatMap((name) => [[name, `${spoken(name)}, ${network.name}`],
    [`${name}-`, `${spoken(name)}, ${other.name}`], [`${name}~`, `${spoken(name)}: how much they differ`]])];
  const sort = choices.some(([value]) => value === parameters.get("sort")) ? parameters.get("sort") : choices[0][0];
  const name = sort.replace(/[-~]$/, "");
  const worth = ([a, b, value]) => sort === "match" ? value
    : sort.endsWith("~") ? (a[name] === null || b[name] === null ? null : Math.abs(a[name] - b[name]))
    : (sort.endsWith("-") ? b : a)[name];
  found.sort(order(LOW_IS_GOOD.has(sort.replace(/-$/, "")) ? 1 : -1, worth));
  const select = (label, list, chosen, go) => {
    const made = element("select", { "aria-label": label },
      list.map((group) => element("option", { value: group.key, selected: group === chosen ? "" : null }, group.name)));
    made.addEventListener("change", () => { location.hash = go(keyed(made.value)); });
    return element("label", {}, `${label} `, made);
  };
  const by = element("select", { "aria-label": "sort by" },
    choices.map(([value, words]) => element("option", { value, selected: value === sort ? "" : null }, words)));
  by.addEventListener("change", () => { location.hash = `${beside(left, right)}?sort=${encodeURIComponent(by.value)}`; });
  const grid = element("div", { class: "grid", id: "grid" });
  const shownNow = [
    element("h1", {}, `${network.name} and ${other.name}`),
    element("div", { class: "tools" },
      select(network.name, ours(), left, (group) => beside(group, group.name === "classes" ? counterpart(group) ?? right : right)),
      select(other.name, theirs(), right, (group) => beside(left, group)),
      element("label", {}, "sort by ", by),
      sizer(),
      element("span", { class: "faint", id: "count" }, found.length
        ? `${found.length} of ${left.count} and ${right.count} units are ${matched ? "matched" : "in both"}`
        : `no unit is in both: expected atlases of the same classes or channels`)),
    grid];
  const cell = (i, side) => {
    const [a, b, value] = found[i];
    const label = a.short === b.short || left.name === "classes" ? a.short : `${a.short} · ${b.short}`;
    const words = sort === "match" ? `${label}: ${value.toFixed(2)}` : name === "index" ? label : `${label}: ${shown(a[name], name)} · ${shown(b[name], name)}`;
    return [{ href: beside(left, right, a.index), title: `${a.label} · ${b.label}` },
      [picture(left, a.place, side, `image of ${a.label} by ${network.name}`, a.files[0]),
        picture(right, b.place, side, `image of ${b.label} by ${other.name}`, b.files[0])], words];
  };
  return [shownNow, () => {
    const ends = [scrolled(grid, found.length, 2, cell), keysLead(null, "#/", null)];
    return () => ends.forEach((end) => end());
  }];
}

async function pairPage(left, right, index) {
  const found = await paired(left, right);
  const place = found.findIndex((pair) => pair[0].index === index);
  if (place < 0) return missing(`${left.name}:${index} in both networks`);
  const pair = found[place], before = found[place - 1], after = found[place + 1];
  const rows = Object.keys(MEANING).filter((name) => pair.some((unit) => unit[name] !== null));
  const side = (group, unit) => element("section", { class: "side" },
    element("h2", {}, element("a", { href: address(group, unit) }, networks[group.network].name)),
    element("p", { class: "faint" }, unit.unit),
    large(group, unit),
    element("table", {}, rows.map((name) => element("tr", {}, element("th", { scope: "row" }, MEANING[name]), cells(unit, name)))),
    curve(unit));
  const to = (each) => beside(left, right, each[0].index);
  const shownNow = [
    steps(before && [calledOf(left, before[0]), to(before)], ["side by side", beside(left, right)], after && [calledOf(left, after[0]), to(after)]),
    element("h1", {}, left.name === "classes" ? pair[0].label : `${pair[0].label} · ${pair[1].label}`),
    ...(pair[2] === undefined ? []
      : [element("p", { class: "faint" }, `matched: correlation ${pair[2].toFixed(2)}`)]),
    element("div", { class: "sides" }, side(left, pair[0]), side(right, pair[1]))];
  const about = { image: pair[0].files[0], title: `${pair[0].label} side by side`,
    words: `${pair[0].label} of ${network.name} beside ${pair[1].label} of ${other.name}.` };
  return [shownNow, () => keysLead(before && to(before), beside(left, right), after && to(after)), about];
}

const missing = (what) => [[element("h1", {}, "Not here"), element("p", {}, `There is no ${what} in this atlas.`)]];

// Search: classes by name, layers by name, and units as they are spelled.  Where two networks are side by side it leads
// to the units of both, if both have it.

async function look() {
  const words = query.value.trim().toLowerCase();
  if (!words) return offer([]);
  const hits = [];
  const spelled = words.match(/^(.+):(\d+)$/);
  const side = here().path[0] === BESIDE;
  const to = async (group, unit) => (side && (await pairOf(group, unit))) || address(group, unit);
  for (const group of groups) {
    const whose = other ? ` · ${networks[group.network].name}` : "";
    if (spelled && [group.name.toLowerCase(), group.name === "classes" ? "class" : null].includes(spelled[1])) {
      await load(group);
      const unit = group.byIndex.get(Number(spelled[2]));
      if (unit) hits.push([`${group.name}:${unit.index}${whose}`, await to(group, unit)]);
    } else if (group.name.toLowerCase().includes(words)) {
      hits.push([`${group.name}${whose}`, page(group)]);
    }
    if (group.name === "classes" || group.words) {
      await load(group);
      const known = (unit) => (group.name === "classes" ? unit.label : isNamed(unit) ? unit.word : "").toLowerCase();
      const fitting = group.units.filter((unit) => known(unit).includes(words));
      fitting.sort((a, b) => known(a).indexOf(words) - known(b).indexOf(words));
      for (const unit of fitting.slice(0, 12)) {
        const called = group.name === "classes" ? unit.label : `${unit.word}: ${unit.label}`;
        hits.push([`${called}${whose}`, await to(group, unit)]);
      }
    }
  }
  if (query.value.trim().toLowerCase() !== words) return undefined;  // more has been typed meanwhile
  const once = hits.filter(([, href], i) => hits.findIndex((hit) => hit[1] === href) === i);
  return offer(once.length ? once.slice(0, 20) : [["nothing found", null]]);
}

function offer(hits) {
  found.replaceChildren(...hits.map(([label, href], i) =>
    element("li", { role: "option", id: `found-${i}`, "aria-selected": "false" }, element("a", { href, tabindex: -1 }, label))));
  query.setAttribute("aria-expanded", String(hits.length > 0));
  choose(0);
}

function choose(at) {
  const items = [...found.children];
  if (!items.length) return query.removeAttribute("aria-activedescendant");
  const place = (at + items.length) % items.length;
  items.forEach((item, i) => item.setAttribute("aria-selected", String(i === place)));
  items[place].scrollIntoView({ block: "nearest" });
  return query.setAttribute("aria-activedescendant", items[place].id);
}

const chosen = () => [...found.children].findIndex((item) => item.getAttribute("aria-selected") === "true");

query.addEventListener("input", look);
query.addEventListener("keydown", (event) => {
  const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!move || !found.children.length) return;
  event.preventDefault();
  choose(chosen() + move);
});
document.getElementById("search").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (chosen() < 0) await look();
  const href = found.children[chosen()]?.firstChild.getAttribute("href");
  if (!href) return;
  if (href === location.hash) route();
  else location.hash = href;
});
found.addEventListener("click", (event) => {  // of the page that is shown already nothing else would tell
  if (event.target.closest("a")?.getAttribute("href") === location.hash) route();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !busy(event)) { event.preventDefault(); query.focus(); }
  if (event.key === "Escape" && event.target.matches("main input, main select")) event.target.blur();
  if (event.key === "Escape" && document.activeElement === query) { query.value = ""; offer([]); query.blur(); }
});

// Addresses: #/~~ for the map of units, #/GROUP, #/GROUP/INDEX, #/GROUP/INDEX/play, #/~/GROUP/GROUP and #/~/GROUP/GROUP/INDEX; none for the overview.

function here() {
  const [path, search] = location.hash.replace(/^#\/?/, "").split("?");
  return { path: path.split("/").map(decodeURIComponent), parameters: new URLSearchParams(search ?? "") };
}

function pageOf({ path: [key, ...rest], parameters }) {
  if (key === "") return overview();
  if (key === LIKENESS && window.ATLAS.likeness) return mapPage([unitsByLikeness()], [network.name, "#/"], null);
  if (key === BESIDE && other) {
    const [left, right] = sides(keyed(rest[0]), keyed(rest[1]));
    if (rest[2] === undefined && left.map && right.map && !parameters.has("sort")) {
      return mapPage([cellsOf(left), cellsOf(right)], ["atlas", "#/"], `${beside(left, right)}?sort=index`);
    }
    return rest[2] === undefined ? besidePage(left, right, parameters) : pairPage(left, right, Number(rest[2]));
  }
  const group = keyed(key);
  if (!group) return missing(key);
  if (rest[0] === undefined && group.map && !parameters.has("sort")) {
    return mapPage([cellsOf(group)], [networks[group.network].name, "#/"], `${page(group)}?sort=index&least=`);
  }
  if (rest[0] === undefined) return layer(group, parameters);
  return (rest[1] === "play" ? gamePage : unitPage)(group, Number(rest[0]));
}

// What the document says of the page that is shown: its title, a description, and a picture for previews.
const metas = Object.fromEntries([...document.head.querySelectorAll("meta[name],meta[property]")]
  .map((meta) => [meta.getAttribute("name") ?? meta.getAttribute("property"), meta]));
const described = metas.description.content;
const base = metas["og:image"].content.slice(0, -window.ATLAS.preview.length);
function announce({ title: called, words, image } = {}) {
  const heading = here().path[0] === "" ? "" : called ?? main.querySelector("h1")?.textContent ?? "";
  document.title = heading ? `${heading} · ${title}` : title;
  metas["og:title"].content = document.title;
  metas.description.content = metas["og:description"].content = words ?? described;
  metas["og:image"].content = base + link(image ?? window.ATLAS.preview);
}

async function route() {
  const visit = ++visits;
  leave();
  leave = () => {};
  query.value = "";
  offer([]);
  if (document.activeElement === query) main.focus({ preventScroll: true });  // so that keys are the page's again
  try {
    const [children, begin, about] = await pageOf(here());
    if (visit !== visits) return;  // the reader has gone on meanwhile
    main.replaceChildren(...children);
    announce(about);
    leave = begin?.() ?? leave;
  } catch (error) {
    main.replaceChildren(element("p", {}, String(error.message)));
  }
  scrollTo(0, 0);
}

addEventListener("hashchange", route);
route();
