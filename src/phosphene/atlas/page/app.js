"use strict";
// The atlas's page.  data.js has the networks and their groups of units; the units of a group are in a script of their
// own, which is loaded when the group is first shown, since a page from the file system may not fetch.

const main = document.getElementById("main");
const query = document.getElementById("query");
const found = document.getElementById("found");
const { networks, groups, columns, thumb, film, pairs } = window.ATLAS;
const [network, other] = networks;
const MEANING = {
  judged: "other networks' probability of the class",
  top1: "other networks whose first guess it is",
  probability: "the network's own probability",
  objective: "activation",
  robustness: "views that keep it",
  retained: "activation that views retain",
  rank: "rank in its layer on its own image",
  slope: "slope of the spectrum",
  saturated: "saturated values",
  steps: "steps",
};
const SCORES = ["judged", "probability", "robustness", "retained", "rank", "objective"];
const SHARES = new Set(["judged", "top1", "probability", "robustness", "retained", "saturated"]);
const LOW_IS_GOOD = new Set(["rank", "index"]);
const BESIDE = "~";
const calm = matchMedia("(prefers-reduced-motion: reduce)");
let leave = () => {};
let visits = 0;

const home = document.getElementById("home");
home.textContent = networks.map((each) => each.name).join(" · ");
document.title = `${home.textContent}: atlas`;
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

function picture(group, place, side, words) {
  const perSheet = thumb.columns * thumb.rows;
  const sheet = Math.floor(place / perSheet), within = place % perSheet;
  const x = within % thumb.columns, y = Math.floor(within / thumb.columns);
  const rows = Math.ceil(Math.min(perSheet, group.count - sheet * perSheet) / thumb.columns);
  const made = element("span", { class: "thumb", role: "img", "aria-label": words });
  made.style.cssText = `width:${side}px;height:${side}px;background-image:url("${group.sheets[sheet]}");` +
    `background-size:${thumb.columns * side}px ${rows * side}px;background-position:${-x * side}px ${-y * side}px`;
  return made;
}

const small = (group, unit, side) => picture(group, unit.place, side, `image of ${unit.label}`);
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
const cells = (unit, name) => {
  const made = element("td", {}, name === "rank" && unit.rank !== null ? `${unit.rank} of ${unit.of}` : shown(unit[name], name));
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
      drawn(each, mine),
      element("ol", { class: "layers" }, mine.map((group) => element("li", {}, element("a", { href: page(group) },
        element("strong", {}, group.name),
        element("span", { class: "faint" },
          `  ${group.count} units${group.type ? `, ${group.type}` : ""}, ${group.recipe}`),
        strip(group))))));
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

function sorter(choices, sort, least, go) {
  const select = element("select", { "aria-label": "sort by" },
    choices.map(([value, words]) => element("option", { value, selected: value === sort ? "" : null }, words)));
  const limit = element("input", { type: "number", step: "any", value: Number.isNaN(least) ? "" : least,
    "aria-label": LOW_IS_GOOD.has(sort) ? "at most" : "at least" });
  select.addEventListener("change", () => go(select.value, ""));
  limit.addEventListener("change", () => go(select.value, limit.value));
  return [element("label", {}, "sort by ", select), element("label", {}, LOW_IS_GOOD.has(sort) ? "at most " : "at least ", limit)];
}

async function layer(group, parameters) {
  await load(group);
  const present = [...SCORES.filter((name) => group.units.some((unit) => unit[name] !== null)), "index"];
  const sort = present.includes(parameters.get("sort")) ? parameters.get("sort") : "index";
  const least = parseFloat(parameters.get("least") ?? "");
  const go = (by, limit) => { location.hash = `${page(group)}?sort=${by}&least=${limit}`; };
  const sign = LOW_IS_GOOD.has(sort) ? 1 : -1;
  const units = group.units
    .filter((unit) => Number.isNaN(least) || (unit[sort] !== null && sign * unit[sort] <= sign * least))
    .sort(order(sign, (unit) => unit[sort]));
  const grid = element("div", { class: "grid", id: "grid" });
  const place = groups.filter((each) => each.network === group.network);
  const before = place[place.indexOf(group) - 1], after = place[place.indexOf(group) + 1];
  const shownNow = [
    steps(before && [before.name, page(before)], [networks[group.network].name, "#/"], after && [after.name, page(after)]),
    element("h1", {}, group.name),
    element("div", { class: "tools" },
      sorter(present.map((name) => [name, name]), sort, least, go),
      element("span", { class: "faint", id: "count" }, `${units.length} of ${group.count} units`)),
    grid];
  return [shownNow, () => scrolled(grid, units.length, 1, (i, side) => {
    const unit = units[i];
    const words = sort === "index" || unit[sort] === null ? unit.short : `${unit.short}: ${shown(unit[sort], sort)}`;
    return [{ href: address(group, unit), title: unit.label }, [small(group, unit, side)], words];
  })];
}

// Only the cells in view are there, so that thousands of units scroll smoothly.  A cell has so many images in a row.
function scrolled(grid, count, images, cell) {
  let side = 0, across = 0, drawnNow = "";
  const draw = () => {
    const width = grid.clientWidth;
    across = Math.max(images > 1 ? 1 : 2, Math.floor(width / (images * (thumb.side + 2) + 10)));
    side = Math.min(thumb.side, Math.floor((width / across - 6) / images) - 2);
    const wide = width / across, high = side + 26;
    grid.style.height = `${Math.ceil(count / across) * high}px`;
    const top = -grid.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(top / high) - 2) * across;
    const last = Math.min(count, (Math.ceil((top + innerHeight) / high) + 2) * across);
    if (drawnNow === `${first} ${last} ${width}`) return;
    drawnNow = `${first} ${last} ${width}`;
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
    const top = Math.floor(next / across) * (side + 26) + grid.offsetTop;
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
  const alike = Object.entries(unit.near).map(([key, indices]) => [keyed(key), indices]).filter(([each]) => each);
  const classes = groups.find((each) => each.network === group.network && each.name === "classes");
  const partner = other && (await pairOf(group, unit));
  await Promise.all([...alike.map(([each]) => load(each)), unit.feeds.length && classes ? load(classes) : null]);
  const rows = [...Object.keys(MEANING)].filter((name) => unit[name] !== null)
    .map((name) => element("tr", {}, element("th", { scope: "row" }, MEANING[name]), cells(unit, name)));
  const facets = unit.files.slice(1).map((file, i) => element("a", { href: link(file) },
    element("img", { src: link(file), alt: `facet ${i + 1} of ${unit.label}`, loading: "lazy", width: group.size[0], height: group.size[1] })));
  const part = (title, ...children) => [element("h2", {}, title), ...children];
  const [ascent, begin] = ascentOf(group, unit);
  const shownNow = [
    steps(before && [calledOf(group, before), address(group, before)], [group.name, page(group)],
      after && [calledOf(group, after), address(group, after)]),
    element("h1", {}, unit.label),
    element("p", { class: "faint" }, `${unit.unit} of ${networks[group.network].name}`),
    element("div", { class: "unit" },
      element("div", {},
        large(group, unit, "image"),
        facets.length ? element("div", { class: "facets" }, facets) : null,
        ascent ? part("How it came about", ascent) : null),
      element("div", {},
        partner ? element("p", {}, element("a", { href: partner, class: "tab" }, "side by side with the other network")) : null,
        element("table", {}, rows),
        alike.map(([each, indices]) => part(titleOf(group, each), element("div", { class: "alike" },
          indices.map((one) => each.byIndex.get(one)).filter(Boolean).map((one) => near(each, one))))).flat(),
        unit.photographs ? part("Photographs that excite it most", element("img", { src: link(unit.photographs),
          class: "photographs", loading: "lazy",
          alt: `photographs that excite ${unit.label} most, and what it sees of them` })) : null,
        unit.feeds.length ? part("Classes that its image makes likelier", element("p", {}, unit.feeds.map(([one, name], i) => {
          const fed = classes?.byIndex.get(one);
          return [i ? ", " : null, fed ? element("a", { href: address(classes, fed) }, name) : name];
        }).flat())) : null,
        part("Made by",
          element("p", {}, `${group.recipe}, ${unit.steps} steps, ${unit.stopped}, seed ${unit.seed}`),
          element("details", {}, element("summary", {}, "the whole recipe"), element("pre", {}, group.toml)),
          element("p", { class: "faint" }, "The same image again, from its file alone:"),
          element("pre", { id: "command" }, `phosphene again ${quoted(unit.files[0])}`))))];
  return [shownNow, () => {
    const ends = [begin(), keysLead(before && address(group, before), page(group), after && address(group, after))];
    return () => ends.forEach((end) => end());
  }];
}

const titleOf = (group, each) => each === group
  ? (group.name === "classes" ? "Classes that are most alike" : "Channels of this layer that are most alike")
  : `Most alike in the layer ${group.name === "classes" || groups.indexOf(each) < groups.indexOf(group) ? "before" : "after"}, ${each.name}`;
const calledOf = (group, unit) => group.name === "classes" ? unit.short : `channel ${unit.short}`;
const quoted = (file) => /^[\w./+-]+$/.test(file) ? file : `'${file.replaceAll("'", "'\\''")}'`;

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

// Two networks side by side.

// Units of two groups that belong together, as [left, right]: of one class, or of one index.
async function paired(left, right) {
  await Promise.all([load(left), load(right)]);
  const byClass = left.name === "classes" && right.name === "classes" && pairs.length;
  if (!byClass) {
    return left.units.filter((unit) => right.byIndex.has(unit.index)).map((unit) => [unit, right.byIndex.get(unit.index)]);
  }
  return pairs.map(([one, two]) => [left.byIndex.get(one), right.byIndex.get(two)]).filter((pair) => pair[0] && pair[1]);
}

const ours = () => groups.filter((group) => group.network === 0);
const theirs = () => groups.filter((group) => group.network === 1);

// The group of the other network that one is first shown with: of the same name, or else about as deep.
function counterpart(group) {
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
  const choices = [["index", "index"], ...present.flatMap((name) => [[name, `${name}, ${network.name}`],
    [`${name}-`, `${name}, ${other.name}`], [`${name}~`, `${name}: how much they differ`]])];
  const sort = choices.some(([value]) => value === parameters.get("sort")) ? parameters.get("sort") : "index";
  const name = sort.replace(/[-~]$/, "");
  const worth = ([a, b]) => sort.endsWith("~") ? (a[name] === null || b[name] === null ? null : Math.abs(a[name] - b[name]))
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
      element("span", { class: "faint", id: "count" }, found.length
        ? `${found.length} of ${left.count} and ${right.count} units are in both`
        : `no unit is in both: expected atlases of the same classes or channels`)),
    grid];
  return [shownNow, () => scrolled(grid, found.length, 2, (i, side) => {
    const [a, b] = found[i];
    const label = a.short === b.short || left.name === "classes" ? a.short : `${a.short} · ${b.short}`;
    const words = name === "index" ? label : `${label}: ${shown(a[name], name)} · ${shown(b[name], name)}`;
    return [{ href: beside(left, right, a.index), title: `${a.label} · ${b.label}` },
      [picture(left, a.place, side, `image of ${a.label} by ${network.name}`),
        picture(right, b.place, side, `image of ${b.label} by ${other.name}`)], words];
  })];
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
    element("div", { class: "sides" }, side(left, pair[0]), side(right, pair[1]))];
  return [shownNow, () => keysLead(before && to(before), beside(left, right), after && to(after))];
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
    if (group.name === "classes") {
      await load(group);
      const fitting = group.units.filter((unit) => unit.label.toLowerCase().includes(words));
      fitting.sort((a, b) => a.short.toLowerCase().indexOf(words) - b.short.toLowerCase().indexOf(words));
      for (const unit of fitting.slice(0, 12)) hits.push([`${unit.label}${whose}`, await to(group, unit)]);
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
  if (event.key === "Escape" && document.activeElement === query) { query.value = ""; offer([]); query.blur(); }
});

// Addresses: #/GROUP, #/GROUP/INDEX, #/~/GROUP/GROUP and #/~/GROUP/GROUP/INDEX; none for the overview.

function here() {
  const [path, search] = location.hash.replace(/^#\/?/, "").split("?");
  return { path: path.split("/").map(decodeURIComponent), parameters: new URLSearchParams(search ?? "") };
}

function pageOf({ path: [key, ...rest], parameters }) {
  if (key === "") return overview();
  if (key === BESIDE && other) {
    const [left, right] = sides(keyed(rest[0]), keyed(rest[1]));
    return rest[2] === undefined ? besidePage(left, right, parameters) : pairPage(left, right, Number(rest[2]));
  }
  const group = keyed(key);
  if (!group) return missing(key);
  return rest[0] === undefined ? layer(group, parameters) : unitPage(group, Number(rest[0]));
}

async function route() {
  const visit = ++visits;
  leave();
  leave = () => {};
  query.value = "";
  offer([]);
  if (document.activeElement === query) main.focus({ preventScroll: true });  // so that keys are the page's again
  try {
    const [children, begin] = await pageOf(here());
    if (visit !== visits) return;  // the reader has gone on meanwhile
    main.replaceChildren(...children);
    leave = begin?.() ?? leave;
  } catch (error) {
    main.replaceChildren(element("p", {}, String(error.message)));
  }
  scrollTo(0, 0);
}

addEventListener("hashchange", route);
route();
