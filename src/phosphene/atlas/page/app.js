"use strict";
// The atlas's page.  data.js has the network and its groups; the units of a group are in a script of their own, which
// is loaded when the group is first shown, since a page from the file system may not fetch.

const main = document.getElementById("main");
const query = document.getElementById("query");
const found = document.getElementById("found");
const { network, groups, columns, thumb } = window.ATLAS;
const SCORES = ["judged", "probability", "robustness", "retained", "rank", "objective", "index"];
const LOW_IS_GOOD = new Set(["rank", "index"]);
let leave = () => {};

const home = document.getElementById("home");
home.textContent = network.name;
document.title = `${network.name}: atlas`;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
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
      done(group);
    };
    script.onerror = () => failed(new Error(`${group.script} is missing`));
    document.head.append(script);
  });
}

function picture(group, unit, side) {
  const perSheet = thumb.columns * thumb.rows;
  const sheet = Math.floor(unit.place / perSheet), within = unit.place % perSheet;
  const x = within % thumb.columns, y = Math.floor(within / thumb.columns);
  const sheets = Math.min(perSheet, group.count - sheet * perSheet);
  const rows = Math.ceil(sheets / thumb.columns);
  const made = element("span", { class: "thumb", role: "img", "aria-label": `image of ${unit.label}` });
  made.style.cssText = `width:${side}px;height:${side}px;background-image:url("${group.sheets[sheet]}");` +
    `background-size:${thumb.columns * side}px ${rows * side}px;background-position:${-x * side}px ${-y * side}px`;
  return made;
}

const address = (group, unit) => `#/${group.place}/${unit.index}`;
const shown = (value, name) => value === null || value === undefined ? "–"
  : name === "rank" ? String(value)
  : ["judged", "top1", "probability", "robustness", "retained", "saturated"].includes(name) ? `${(100 * value).toFixed(1)} %`
  : Math.abs(value) >= 1000 ? value.toPrecision(4) : String(Math.round(value * 1000) / 1000);

// The pages.

async function overview() {
  const list = element("ol", { class: "layers" });
  main.replaceChildren(
    element("h1", {}, network.name),
    element("p", { class: "faint" },
      `${network.images} images of ${groups.length} groups, in the order of the network's layers; weights ${network.weights}`),
    list);
  for (const group of groups) {
    const strip = element("div", { class: "strip" });
    list.append(element("li", {}, element("a", { href: `#/${group.place}` },
      element("strong", {}, group.name),
      element("span", { class: "faint" }, `  ${group.count} units${group.type ? `, ${group.type}` : ""}, ${group.recipe}`),
      strip)));
    load(group).then(() => {
      const step = Math.max(1, Math.floor(group.units.length / 12));
      strip.append(...group.units.filter((_, i) => i % step === 0).slice(0, 12).map((unit) => picture(group, unit, 72)));
    });
  }
}

async function layer(group, parameters) {
  await load(group);
  const present = SCORES.filter((name) => group.units.some((unit) => unit[name] !== null));
  const sort = present.includes(parameters.get("sort")) ? parameters.get("sort") : "index";
  const least = parseFloat(parameters.get("least") ?? "");
  const select = element("select", { "aria-label": "sort by" },
    ...present.map((name) => element("option", name === sort ? { value: name, selected: "" } : { value: name }, name)));
  const limit = element("input", { type: "number", step: "any", value: Number.isNaN(least) ? "" : least, style: "width:6rem",
    "aria-label": LOW_IS_GOOD.has(sort) ? "at most" : "at least" });
  const go = () => { location.hash = `#/${group.place}?sort=${select.value}&least=${limit.value}`; };
  select.addEventListener("change", () => { limit.value = ""; go(); });
  limit.addEventListener("change", go);
  const sign = LOW_IS_GOOD.has(sort) ? 1 : -1;
  const units = group.units
    .filter((unit) => Number.isNaN(least) || (unit[sort] !== null && sign * unit[sort] <= sign * least))
    .sort((a, b) => a[sort] === null ? 1 : b[sort] === null ? -1 : sign * (a[sort] - b[sort]));
  const grid = element("div", { class: "grid", id: "grid" });
  main.replaceChildren(
    element("h1", {}, group.name),
    element("div", { class: "tools" },
      element("label", {}, "sort by ", select),
      element("label", {}, LOW_IS_GOOD.has(sort) ? "at most " : "at least ", limit),
      element("span", { class: "faint", id: "count" }, `${units.length} of ${group.count} units`)),
    grid);
  leave = scrolled(grid, group, units, sort);
}

// Only the cells in view are there, so that thousands of units scroll smoothly.
function scrolled(grid, group, units, sort) {
  let side = 0, across = 0, drawn = "";
  const draw = () => {
    const width = grid.clientWidth;
    across = Math.max(2, Math.floor(width / (thumb.side + 8)));
    side = Math.min(thumb.side, Math.floor(width / across) - 6);
    const wide = width / across, high = side + 26;
    grid.style.height = `${Math.ceil(units.length / across) * high}px`;
    const top = -grid.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(top / high) - 2) * across;
    const last = Math.min(units.length, (Math.ceil((top + innerHeight) / high) + 2) * across);
    if (drawn === `${first} ${last} ${width}`) return;
    drawn = `${first} ${last} ${width}`;
    const focused = document.activeElement?.dataset?.at;
    grid.replaceChildren(...units.slice(first, last).map((unit, i) => {
      const at = first + i;
      const words = sort === "index" || unit[sort] === null ? unit.short : `${unit.short}: ${shown(unit[sort], sort)}`;
      const cell = element("a", { class: "cell", href: address(group, unit), title: unit.label, "data-at": at },
        picture(group, unit, side), element("span", {}, words));
      cell.style.cssText = `left:${(at % across) * wide}px;top:${Math.floor(at / across) * high}px;width:${side}px`;
      return cell;
    }));
    if (focused !== undefined) grid.querySelector(`[data-at="${focused}"]`)?.focus({ preventScroll: true });
  };
  const keys = (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across }[event.key];
    if (!move || event.target === query || event.target.matches("select,input")) return;
    event.preventDefault();
    const at = Number(document.activeElement?.dataset?.at ?? -move);
    const next = Math.min(units.length - 1, Math.max(0, at + move));
    const top = Math.floor(next / across) * (side + 26) + grid.offsetTop;
    if (top < scrollY + 60 || top + side > scrollY + innerHeight) scrollTo(0, top - innerHeight / 3);
    drawn = "";
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

async function unitPage(group, index) {
  await load(group);
  const place = group.units.findIndex((unit) => unit.index === index);
  if (place < 0) return missing(`${group.name}:${index}`);
  const unit = group.units[place], before = group.units[place - 1], after = group.units[place + 1];
  const rows = ["judged", "top1", "probability", "objective", "robustness", "retained", "rank", "slope", "saturated", "steps"]
    .filter((name) => unit[name] !== null)
    .map((name) => element("tr", {}, element("th", {}, MEANING[name]),
      element("td", {}, name === "rank" ? `${unit.rank} of ${unit.of}` : shown(unit[name], name))));
  const facets = unit.files.slice(1).map((file, i) =>
    element("a", { href: file }, element("img", { src: file, alt: `facet ${i + 1} of ${unit.label}`, loading: "lazy" })));
  const near = (unit.near ?? []).map((other) => group.units.find((unit) => unit.index === other)).filter(Boolean)
    .map((other) => element("a", { href: address(group, other), title: other.label, class: "near" },
      picture(group, other, 72), element("span", {}, other.short)));
  main.replaceChildren(
    element("nav", { class: "beside", "aria-label": "units beside this one" },
      before ? element("a", { href: address(group, before), rel: "prev" }, `← ${before.short}`) : element("span"),
      element("a", { href: `#/${group.place}` }, group.name),
      after ? element("a", { href: address(group, after), rel: "next" }, `${after.short} →`) : element("span")),
    element("div", { class: "unit" },
      element("div", {},
        element("a", { href: unit.files[0] }, element("img", { src: unit.files[0], alt: `image of ${unit.label}`, id: "image" })),
        facets.length ? element("div", { class: "facets" }, ...facets) : null),
      element("div", {},
        element("h1", {}, unit.label),
        element("p", { class: "faint" }, unit.unit),
        element("table", {}, ...rows),
        near.length ? element("h2", {}, group.name === "classes" ? "Classes that are most alike" : "Channels that are most alike") : null,
        near.length ? element("div", { class: "alike" }, ...near) : null,
        unit.photographs ? element("h2", {}, "Photographs that excite it most") : null,
        unit.photographs ? element("img", { src: unit.photographs, class: "photographs", loading: "lazy",
          alt: `what ${unit.label} sees in the photographs that excite it most` }) : null,
        unit.feeds?.length ? element("h2", {}, "Classes that its image makes likelier") : null,
        unit.feeds?.length ? element("p", {}, unit.feeds.join(", ")) : null,
        element("h2", {}, "Made by"),
        curve(unit),
        element("p", {}, `${group.recipe}, ${unit.steps} steps, ${unit.stopped}, seed ${unit.seed}`),
        element("p", { class: "faint" }, "The same image again, from its file alone:"),
        element("pre", {}, `phosphene again ${unit.files[0]}`))));
  const keys = (event) => {
    if (event.target === query) return;
    if (event.key === "ArrowLeft" && before) location.hash = address(group, before);
    if (event.key === "ArrowRight" && after) location.hash = address(group, after);
    if (event.key === "Escape") location.hash = `#/${group.place}`;
  };
  document.addEventListener("keydown", keys);
  leave = () => document.removeEventListener("keydown", keys);
}

function curve(unit) {
  if (!unit.curve || unit.curve.length < 2) return null;
  const low = Math.min(...unit.curve), high = Math.max(...unit.curve), last = unit.curve.length - 1;
  const points = unit.curve.map((value, i) =>
    `${(200 * i / last).toFixed(1)},${(58 - 56 * (value - low) / (high - low || 1)).toFixed(1)}`).join(" ");
  const made = element("div", { class: "curve", role: "img",
    "aria-label": `the objective rose from ${shown(unit.curve[0])} to ${shown(unit.curve[last])}` });
  made.innerHTML = `<svg viewBox="0 0 200 60" preserveAspectRatio="none"><polyline points="${points}"/></svg>`;
  made.append(element("span", { class: "faint" },
    `objective over ${unit.steps} steps: ${shown(unit.curve[0])} to ${shown(unit.curve[last])}`));
  return made;
}

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

function missing(what) {
  main.replaceChildren(element("h1", {}, "Not here"), element("p", {}, `There is no ${what} in this atlas.`));
}

// Search.

async function look() {
  const words = query.value.trim().toLowerCase();
  if (!words) return found.replaceChildren();
  const hits = [];
  const spelled = words.match(/^(.+):(\d+)$/);
  for (const group of groups) {
    if (spelled && group.name.toLowerCase() === spelled[1] && Number(spelled[2]) >= 0) {
      await load(group);
      const unit = group.units.find((unit) => unit.index === Number(spelled[2]));
      if (unit) hits.push([`${group.name}:${unit.index}`, address(group, unit)]);
    } else if (group.name.toLowerCase().includes(words)) {
      hits.push([group.name, `#/${group.place}`]);
    }
    if (group.name === "classes") {
      await load(group);
      const fitting = group.units.filter((unit) => unit.label.toLowerCase().includes(words));
      fitting.sort((a, b) => a.short.toLowerCase().indexOf(words) - b.short.toLowerCase().indexOf(words));
      hits.push(...fitting.slice(0, 12).map((unit) => [unit.label, address(group, unit)]));
    }
  }
  if (query.value.trim().toLowerCase() !== words) return undefined;  // more has been typed meanwhile
  if (!hits.length) return found.replaceChildren(element("li", {}, element("a", {}, "nothing found")));
  return found.replaceChildren(...hits.slice(0, 20).map(([label, href], i) =>
    element("li", { role: "option" }, element("a", i ? { href } : { href, class: "current" }, label))));
}

query.addEventListener("input", look);
document.getElementById("search").addEventListener("submit", (event) => {
  event.preventDefault();
  look().then(() => {
    const first = found.querySelector("a[href]");
    if (first) location.hash = first.getAttribute("href");
  });
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== query) { event.preventDefault(); query.focus(); }
  if (event.key === "Escape" && document.activeElement === query) { query.value = ""; found.replaceChildren(); query.blur(); }
});

function route() {
  leave();
  leave = () => {};
  query.value = "";
  found.replaceChildren();
  const [path, search] = location.hash.replace(/^#\/?/, "").split("?");
  const [place, index] = path.split("/");
  const group = groups[Number(place)];
  const shownPage = place === "" ? overview()
    : !group ? Promise.resolve(missing(path))
    : index === undefined ? layer(group, new URLSearchParams(search ?? ""))
    : unitPage(group, Number(index));
  shownPage.catch((error) => main.replaceChildren(element("p", {}, String(error.message))));
  scrollTo(0, 0);
}

addEventListener("hashchange", route);
route();
