"use strict";
// The page of the administration service.
//
// Whatever comes from the cache (URLs, fields, names) becomes text, by textContent alone. Nothing here parses HTML.

// The address of the API beside this script. A password in the address of the page would make every fetch fail.
const base = new URL(".", document.currentScript.src);
base.username = base.password = "";

const POLL = 2000; // milliseconds
const SAMPLES = 300; // ten minutes
const FEWEST = 30; // as wide as a plot is from the beginning

const at = (id) => document.getElementById(id);

// Makes an element with properties and children, which are elements or text.
function make(name, properties, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

// Shows control characters, and those that change the direction of writing, as escapes.
function visible(text) {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g,
    (letter) => `\\u{${letter.codePointAt(0).toString(16)}}`);
}

const name = (text) => make("bdi", {}, visible(text));

const whole = new Intl.NumberFormat("en");
const count = (number) => whole.format(number);

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit + 1 < units.length) {
    bytes /= 1024;
    unit++;
  }
  return `${unit ? bytes.toFixed(bytes < 10 ? 1 : 0) : bytes} ${units[unit]}`;
}

function duration(seconds) {
  const units = [[86400, "d"], [3600, "h"], [60, "min"]];
  for (const [length, unit] of units) {
    if (seconds >= length) return `${Math.floor(seconds / length)} ${unit}`;
  }
  return `${Math.floor(seconds)} s`;
}

function millis(time) {
  if (time === null) return "–";
  if (time < 1) return `${Math.round(time * 1000)} µs`;
  return time < 10 ? `${time.toFixed(1)} ms` : `${Math.round(time)} ms`;
}

// The clock of the cache, since that of this machine may differ.
let clock = Date.now();
let clockRead = performance.now();
const now = () => clock + (performance.now() - clockRead);

function moment(time) {
  if (time === null) return "never";
  const date = new Date(time);
  const shown = Number.isNaN(date.getTime()) ? String(time) : date.toISOString();
  const away = (time - now()) / 1000;
  return `${shown} (${away >= 0 ? `in ${duration(away)}` : `${duration(-away)} ago`})`;
}

async function ask(path, content) {
  const options = { headers: { "X-Cache-Admin": "1" } };
  if (content !== undefined) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(content);
  }
  const response = await fetch(new URL("api/v1/" + path, base), options);
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.detail ?? `the service answers ${response.status}`);
  return answer;
}

function fail(error) {
  at("error").textContent = visible(error.message || String(error));
  at("error").hidden = false;
}

let hiding;
function tell(text) {
  at("error").hidden = true;
  at("done").textContent = visible(text);
  at("done").hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => { at("done").hidden = true; }, 8000);
}

// Runs an action of a button, which does nothing else meanwhile. It is not disabled: it would lose the focus.
function act(button, action) {
  return async (event) => {
    event?.preventDefault();
    if (button.getAttribute("aria-busy") === "true") return;
    button.setAttribute("aria-busy", "true");
    try {
      await action(event);
    } catch (error) {
      fail(error);
    } finally {
      button.removeAttribute("aria-busy");
    }
  };
}

function enable(button, on) {
  button.disabled = !on;
}

// Asks in a dialog before something is changed.
function confirmed(title, text, verb) {
  const dialog = at("confirm");
  at("confirm-title").textContent = title;
  at("confirm-text").textContent = visible(text);
  at("confirm-yes").textContent = verb;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
at("confirm-no").addEventListener("click", () => at("confirm").close("no"));
at("confirm-yes").addEventListener("click", () => at("confirm").close("yes"));

// --- statistics ---------------------------------------------------------------------------------------------------

const samples = [];
let first;

function difference(newer, older) {
  const counts = (name) => newer.counts[name] - older.counts[name];
  const mean = (which) => {
    const number = newer.latency[which].count - older.latency[which].count;
    return number > 0 ? (newer.latency[which].micros - older.latency[which].micros) / number / 1000 : null;
  };
  const requests = counts("requests");
  return {
    requests,
    share: requests > 0 ? (counts("hits") + counts("stale")) / requests : null,
    origin: mean("origin"),
    storage: mean("storage"),
    seconds: Math.max((newer.time - older.time) / 1000, 0.001),
  };
}

// Returns the time in milliseconds that so large a share of the operations stayed below, to a factor of two.
function quantile(newer, older, which, share) {
  const counts = newer.latency[which].buckets.map((number, at) => number - older.latency[which].buckets[at]);
  const all = counts.reduce((sum, number) => sum + number, 0);
  let sum = 0;
  for (const [at, number] of counts.entries()) {
    sum += number;
    if (all > 0 && sum >= share * all) return 2 ** at / 1000;
  }
  return null;
}

// Draws lines of values from 0 to the highest, all samples from the left to the right. A value that is null leaves a gap.
function plot(svg, lines, highest, label) {
  const [width, height] = [600, 160];
  const shape = (style, path) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", "path");
    element.setAttribute("class", style);
    element.setAttribute("d", path);
    return element;
  };
  const shapes = [0.25, 0.5, 0.75].map((share) => shape("grid", `M0 ${height * share}H${width}`));
  for (const [style, values] of lines) {
    let [path, drawing] = ["", false];
    values.forEach((value, index) => {
      if (value === null) {
        drawing = false;
        return;
      }
      const x = width - (values.length - 1 - index) * (width / Math.max(values.length - 1, FEWEST));
      const y = height - 4 - Math.min(value / highest, 1) * (height - 8);
      // A point alone is drawn as a short line.
      path += `${drawing ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}${drawing ? "" : "h1"}`;
      drawing = true;
    });
    shapes.push(shape(style, path));
  }
  svg.replaceChildren(...shapes);
  svg.setAttribute("aria-label", label);
}

function rows(table, pairs) {
  const lines = pairs.map(([title, number]) =>
    make("tr", {}, make("th", { scope: "row" }, title), make("td", { className: "number" }, count(number))));
  at(table).tBodies[0].replaceChildren(...lines);
}

function show(numbers) {
  first ??= numbers;
  const last = samples.at(-1);
  clock = numbers.time ?? Date.now();
  clockRead = performance.now();
  samples.push({ numbers, step: last && difference(numbers, last.numbers) });
  if (samples.length > SAMPLES) samples.shift();
  const steps = samples.map((sample) => sample.step ?? { share: null, origin: null, storage: null });
  const total = difference(numbers, first);
  const step = steps.at(-1);
  const percent = (share) => (share === null ? "–" : `${(share * 100).toFixed(1)} %`);
  const since = (name) => numbers.counts[name] - first.counts[name];
  const tiles = [
    ["Requests a second", step.seconds ? (step.requests / step.seconds).toFixed(1) : "–"],
    ["From the storage", percent(total.share)],
    ["Misses", count(since("misses"))],
    ["Stored", count(since("stored"))],
    ["Origin errors", count(since("origin_errors"))],
    ["Storage failures", count(since("storage_failures"))],
  ];
  at("tiles").replaceChildren(...tiles.map(([title, value]) =>
    make("div", {}, make("dt", {}, title), make("dd", {}, value))));

  plot(at("share"), [["one", steps.map((step) => step.share)]], 1,
    `Share of requests answered from the storage: ${percent(total.share)} since this page was opened`);
  at("share-legend").textContent = `now ${percent(step.share)}, in all ${percent(total.share)}; 0 to 100 %`;
  const times = steps.flatMap((step) => [step.origin, step.storage]).filter((time) => time !== null);
  const highest = Math.max(...times, 0.01);
  plot(at("time"), [["one", steps.map((step) => step.origin)], ["two", steps.map((step) => step.storage)]], highest,
    `Mean time of the origin ${millis(total.origin)}, of the storage ${millis(total.storage)}`);
  const legend = (which, style) => {
    const below = quantile(numbers, first, which, 0.95);
    const text = `${which} ${millis(total[which])}` + (below === null ? "" : ` (95 % below ${millis(below)})`);
    return make("span", { className: `key ${style}` }, text);
  };
  at("time-legend").replaceChildren(legend("origin", "one"), ", ", legend("storage", "two"), `; 0 to ${millis(highest)}`);

  rows("counts", Object.entries(numbers.counts).map(([title, number]) => [title.replaceAll("_", " "), number]));
  rows("outcomes", numbers.outcomes.map(({ outcome, reason, count }) =>
    [reason === "none" ? outcome : `${outcome}: ${reason}`, count]));
  rows("unstored", numbers.not_stored.map(({ reason, count }) => [reason, count]));
}

async function poll() {
  // A page that nobody sees asks nothing.
  if (!document.hidden) {
    try {
      show(await ask("statistics"));
      const storage = await ask("storage");
      const bound = storage.max_bytes === null ? "" : ` of ${size(storage.max_bytes)}`;
      const held = storage.bytes === null ? "" : `: ${size(storage.bytes)}${bound}`;
      at("storage").textContent = visible(storage.works ? `The storage works${held}` : `The storage fails: ${storage.error}`);
      at("storage").className = storage.works ? "" : "error";
    } catch (error) {
      at("storage").textContent = visible(`The service does not answer: ${error.message}`);
      at("storage").className = "error";
    }
  }
  setTimeout(poll, POLL);
}

// --- stored responses ---------------------------------------------------------------------------------------------

const list = { sort: "url", order: "ascending", conditions: {}, cursors: [null], next: null };
const NUMBERS = ["larger_than", "older_than", "younger_than"];

function cell(label, ...content) {
  const td = make("td", {}, ...content);
  td.dataset.label = label;
  return td;
}

function row(entry) {
  const url = make("button", { type: "button", className: "link" }, name(entry.url));
  url.addEventListener("click", act(url, () => describe(`entries/${entry.key}`, entry.url)));
  const state = entry.is_fresh ? (entry.expires_at === null ? "for ever" : `for ${duration(entry.ttl)}`)
    : entry.ttl > 0 ? "no-cache" : entry.is_expired ? "no, by hand" : "no";
  const tags = entry.tags.flatMap((tag, index) => (index ? [", ", name(tag)] : [name(tag)]));
  return make("tr", {}, cell("URL", url), cell("Status", String(entry.status)), cell("Body", size(entry.body_bytes)),
    cell("Stored", entry.stored_at === null ? "–" : `${duration(Math.max(now() - entry.stored_at, 0) / 1000)} ago`),
    cell("Fresh", make("span", { className: entry.is_fresh ? "fresh" : "stale" }, state)), cell("Tags", ...tags));
}

let loading = 0;

async function load() {
  const turn = ++loading;
  const query = new URLSearchParams({ limit: 50, sort: list.sort, order: list.order, ...list.conditions });
  const cursor = list.cursors.at(-1);
  if (cursor) query.set("cursor", cursor);
  at("matching").textContent = "Reading …";
  let page;
  try {
    page = await ask(`entries?${query}`);
  } catch (error) {
    if (turn === loading) at("matching").textContent = "";
    throw error;
  }
  if (turn !== loading) return; // a later one is under way, and its answer may already be there
  at("error").hidden = true;
  list.next = page.next;
  at("entries").tBodies[0].replaceChildren(...page.entries.map(row));
  const begin = (list.cursors.length - 1) * 50;
  const shown = page.entries.length ? `, ${count(begin + 1)} to ${count(begin + page.entries.length)} shown` : "";
  at("matching").textContent = `${count(page.matching)} ${page.matching === 1 ? "response" : "responses"}, ` +
    `about ${size(page.stored_bytes)}${shown}`;
  enable(at("previous"), list.cursors.length > 1);
  enable(at("next"), list.next !== null);
  const chosen = Object.keys(list.conditions).length > 0 && page.matching > 0;
  enable(at("expire-matching"), chosen);
  enable(at("delete-matching"), chosen);
  for (const button of document.querySelectorAll("#entries th button")) {
    const is = button.dataset.sort === list.sort;
    if (is) button.parentElement.setAttribute("aria-sort", list.order);
    else button.parentElement.removeAttribute("aria-sort");
  }
}

function reload() {
  list.cursors = [null];
  return load();
}

function conditions(form) {
  const filled = [...new FormData(form)].map(([key, value]) => [key, value.trim()]).filter(([, value]) => value);
  return Object.fromEntries(filled);
}

at("search").addEventListener("submit", act(at("find"), () => {
  list.conditions = conditions(at("search"));
  return reload();
}));
at("search").addEventListener("reset", () => {
  list.conditions = {};
  reload().catch(fail);
});
for (const button of document.querySelectorAll("#entries th button")) {
  button.addEventListener("click", act(button, () => {
    const same = list.sort === button.dataset.sort;
    list.order = same && list.order === "ascending" ? "descending" : "ascending";
    list.sort = button.dataset.sort;
    return reload();
  }));
}
at("next").addEventListener("click", act(at("next"), () => {
  list.cursors.push(list.next);
  return load();
}));
at("previous").addEventListener("click", act(at("previous"), () => {
  list.cursors.pop();
  return load();
}));

function result({ soft, count: number }, what) {
  const many = number === null ? "" : `: ${count(number)}`;
  tell(`${what} ${soft ? "made stale" : "deleted"}${many}`);
}

// Returns the action of a button that removes something, or makes it stale.
function purge(soft, path, what, content, question, then) {
  return async () => {
    const [title, text] = question();
    const verb = soft ? "Make stale" : "Delete";
    // What is confirmed is what is sent, whatever is typed meanwhile.
    const body = { ...content(), soft };
    if (!(await confirmed(title, text, verb))) return;
    result(await ask(`purge/${path}`, body), what);
    await then?.();
    await load();
  };
}

for (const soft of [true, false]) {
  const [word, verb] = soft ? ["expire", "Make these responses stale?"] : ["delete", "Delete these responses?"];
  const matching = at(`${word}-matching`);
  const typed = () => Object.fromEntries(Object.entries(list.conditions).map(([key, value]) =>
    [key, NUMBERS.includes(key) ? Number(value) : value]));
  const said = () => Object.entries(list.conditions).map(([key, value]) => `${key.replaceAll("_", " ")}: ${value}`).join(", ");
  matching.addEventListener("click", act(matching, purge(soft, "matching", "Responses", () => ({ matching: typed() }),
    () => [verb, `All responses that match now (${said()}), on every page of the list.`], () => { list.cursors = [null]; })));
  const all = at(`${word}-all`);
  all.addEventListener("click", act(all, purge(soft, "all", "Everything", () => ({ confirm: true }),
    () => [soft ? "Make everything stale?" : "Delete everything?", soft
      ? "Every stored response is kept, and validated with the origin before it is used again."
      : "Every stored response is removed. The next requests all go to the origin."], () => { list.cursors = [null]; })));
}

// --- one response -------------------------------------------------------------------------------------------------

let described;

async function describe(path, url) {
  const found = await ask(path);
  described = { url: found.response?.url ?? url, entry: found.response?.entry, path };
  at("entry-title").replaceChildren(name(described.url));
  at("entry-why").textContent = visible(found.explanation);
  at("entry-why").className = `why ${found.is_served ? "fresh" : "stale"}`;
  const facts = [["State", found.state]];
  const entry = found.response;
  if (entry) {
    const bytes = (number) => `${count(number)} bytes`;
    facts.push(["Status", String(entry.status)], ["Type", visible(entry.content_type ?? "–")],
      ["Body", bytes(entry.body_bytes) + (entry.is_chunked ? ", in chunks" : "")
        + (entry.parts ? `, of which ${bytes(entry.parts.bytes)} are stored in ${count(entry.parts.count)} parts` : "")], ["In the storage", `about ${bytes(entry.stored_bytes)}`],
      ["Requested", moment(entry.requested_at)], ["Stored", moment(entry.stored_at)],
      ["Fresh until", moment(entry.expires_at)], ["Kept until", moment(entry.retain_until)], ["Age", duration(entry.age)],
      ["Selected by", visible(entry.vary.join(", ")) || "–"], ["For one user", entry.is_personal ? "yes" : "no"],
      ["Tags", visible(entry.tags.join(", ")) || "–"], ["Groups", visible(entry.groups.join(", ")) || "–"]);
  }
  const rules = found.freshness;
  if (rules) {
    const words = [["no_cache", "no-cache"], ["must_revalidate", "must-revalidate"], ["is_immutable", "immutable"]];
    const said = words.filter(([key]) => rules[key]).map(([, word]) => word);
    facts.push(["Lifetime", duration(rules.lifetime)], ["Age when received", duration(rules.age_when_received)],
      ["Directives", said.join(", ") || "–"], ["Served stale while revalidated", duration(rules.stale_while_revalidate)],
      ["Served stale on errors", rules.stale_if_error === null ? "–" : duration(rules.stale_if_error)],
      ["Has a validator", rules.has_validator ? "yes" : "no"]);
    if (rules.expired_by_hand_at !== null) facts.push(["Made stale by hand", moment(rules.expired_by_hand_at)]);
  }
  facts.push(["Key", found.key]);
  at("entry-facts").replaceChildren(...facts.flatMap(([title, value]) => [make("dt", {}, title), make("dd", {}, value)]));
  const field = ({ name: title, value }) => make("tr", {}, make("th", { scope: "row" }, title), value === null
    ? make("td", { className: "withheld" }, "withheld, since it may be a credential") : make("td", {}, name(value)));
  at("entry-fields").tBodies[0].replaceChildren(...found.fields.map(field));
  at("entry-fields").hidden = found.fields.length === 0;
  for (const id of ["entry-variants", "entry-expire", "entry-delete"]) enable(at(id), Boolean(entry));
  if (!at("entry").open) at("entry").showModal();
}

at("entry-close").addEventListener("click", () => at("entry").close());
at("entry-variants").addEventListener("click", act(at("entry-variants"), async () => {
  at("entry").close();
  at("search").reset();
  at("search").elements.entry.value = described.entry;
  at("search").querySelector("details").open = true;
  list.conditions = conditions(at("search"));
  await reload();
  at("responses").focus();
}));
for (const soft of [true, false]) {
  const button = at(soft ? "entry-expire" : "entry-delete");
  button.addEventListener("click", act(button, purge(soft, "url", "URL", () => ({ url: described.url }),
    () => [soft ? "Make this URL stale?" : "Delete this URL?", `${described.url} – with all its variants.`],
    () => (soft ? describe(described.path, described.url) : at("entry").close()))));
}
at("why").addEventListener("submit", act(at("explain"), () => {
  const url = at("why").elements.url.value.trim();
  return describe(`entry?${new URLSearchParams({ url })}`, url);
}));

// --- tags ---------------------------------------------------------------------------------------------------------

let moreTags = null;

function tagRow(tag) {
  const buttons = [true, false].map((soft) => {
    const button = make("button", { type: "button", className: soft ? "" : "danger" }, soft ? "Make stale …" : "Delete …");
    button.setAttribute("aria-label", `${soft ? "Make stale" : "Delete"}: ${visible(tag.name)}`);
    const kind = tag.origin === null ? "tag" : "group";
    const content = () => (tag.origin === null ? { tag: tag.name } : { origin: tag.origin, name: tag.name });
    button.addEventListener("click", act(button, purge(soft, kind, kind === "tag" ? "Tag" : "Group", content,
      () => [`${soft ? "Make stale" : "Delete"} a ${kind}?`, `All responses with the ${kind} ${tag.name}, ${count(tag.responses)} now.`],
      () => (soft ? undefined : button.closest("tr").remove()))));
    return button;
  });
  return make("tr", {}, cell("Name", name(tag.name)), cell("Origin", tag.origin === null ? "" : name(tag.origin)),
    cell("Responses", count(tag.responses)), cell("In the storage", size(tag.stored_bytes)),
    cell("", make("div", { className: "buttons" }, ...buttons)));
}

async function loadTags(cursor) {
  const query = new URLSearchParams(cursor ? { limit: 100, cursor } : { limit: 100 });
  const page = await ask(`tags?${query}`);
  const body = at("tags").tBodies[0];
  if (!cursor) body.replaceChildren();
  body.append(...page.tags.map(tagRow));
  at("tags").hidden = body.rows.length === 0;
  moreTags = page.next;
  at("more-tags").hidden = moreTags === null;
  tell(`${count(body.rows.length)}${moreTags === null ? "" : " and more"} tags and groups`);
}
at("load-tags").addEventListener("click", act(at("load-tags"), () => loadTags(null)));
at("more-tags").addEventListener("click", act(at("more-tags"), () => loadTags(moreTags)));

// --- everything ---------------------------------------------------------------------------------------------------

at("warm").addEventListener("submit", act(at("fetch"), async () => {
  const urls = at("warm").elements.urls.value.split("\n").map((line) => line.trim()).filter(Boolean);
  at("warmed").textContent = "Fetching …";
  try {
    const done = await ask("warm", { urls });
    at("warmed").textContent = Object.entries(done).map(([word, number]) => `${word.replaceAll("_", " ")}: ${count(number)}`).join(", ");
  } catch (error) {
    at("warmed").textContent = "";
    throw error;
  }
  await load();
}));

const pause = (time) => new Promise((resolve) => { setTimeout(resolve, time); });

function showVerification(verification) {
  const { state, responses, bytes, undecodable, incomplete, orphans, error } = verification;
  if (state === "never") return;
  const word = { running: "Checking", done: verification.is_sound ? "All is well" : "There is damage", failed: `Failed (${error})` }[state];
  at("verified").textContent = visible(`${word}: ${count(responses)} responses (${size(bytes)}), ` +
    `${count(undecodable)} records that cannot be read, ${count(incomplete)} incomplete, ${count(orphans)} without use`);
}

async function followVerification(verification) {
  while (verification.state === "running") {
    showVerification(verification);
    await pause(500);
    verification = await ask("verify");
  }
  showVerification(verification);
}
at("verify").addEventListener("click", act(at("verify"), async () => followVerification(await ask("verify", {}))));

poll();
load().catch(fail);
// Another window may have begun one.
act(at("verify"), async () => followVerification(await ask("verify")))();
