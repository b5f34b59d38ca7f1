// The engine's memory, the model and its limits.

// The parts of the limit that the engine keeps to.
function memoryParts(engine) {
  const {
    weights_bytes: weights,
    kv_budget_bytes: budget,
    kv_used_bytes: running,
    prefix_memory_bytes: cached,
  } = engine;
  return [
    ["weights", "Weights", weights],
    ["running", "KV of running requests", running],
    ["cached", "Cached prefixes", cached],
    ["free", "Free for KV and prefixes", Math.max(0, budget - running - cached)],
    ["other", "Working memory", Math.max(0, engine.memory_limit_bytes - weights - budget)],
  ].map(([kind, name, value]) => ({ kind, name, value }));
}

function showMemory({ engine, status }) {
  if (!engine) return showNoMemory(status);
  const { memory_limit_bytes: limit, worker_bytes: footprint } = engine;
  const parts = memoryParts(engine);
  const counted = engine.weights_bytes + engine.kv_used_bytes + engine.prefix_memory_bytes;
  write(byId("memory-used"), bytes(footprint || counted));
  write(byId("memory-limit"), `of ${bytes(limit)}`);
  showShares(byId("memory"), parts, limit, `Limit: ${bytes(limit)}`, footprint);
  showDisk(engine);
}

function showNoMemory(status) {
  const isAsleep = status === "asleep";
  write(byId("memory-used"), isAsleep ? bytes(0) : NONE);
  write(byId("memory-limit"), "");
  showShares(
    byId("memory"),
    [],
    0,
    isAsleep ? "The model sleeps and uses no memory." : "Not known yet.",
  );
  showShares(
    byId("disk"),
    [],
    0,
    isAsleep ? "Prefixes on disk make the next start warm." : "Not known yet.",
  );
}

function showDisk(engine) {
  const { prefix_disk_bytes: used, prefix_disk_cap_bytes: cap } = engine;
  if (!cap) return showShares(byId("disk"), [], 0, "No prefixes are kept on disk.");
  const parts = [
    { kind: "cached", name: "Prefixes", value: used },
    { kind: "free", name: "Free for prefixes", value: Math.max(0, cap - used) },
  ];
  const paused = engine.is_writing_paused ? " Writing is paused." : "";
  const { written_today_bytes: written, daily_write_budget_bytes: budget } = engine;
  const today = `${bytes(written)} of ${bytes(budget)} written today.`;
  showShares(byId("disk"), parts, cap, today + paused);
}

// A stacked bar of a whole, its legend, and a note. The footprint is a place on the bar.
function showShares(box, parts, whole, note, footprint = 0) {
  if (!box.firstChild) makeShares(box);
  const [picture, legend, footnote] = box.children;
  const [bar, mark] = picture.children;
  const named = footprint
    ? [...parts, { kind: "footprint", name: "The worker’s footprint", value: footprint }]
    : parts;
  fillBar(bar, parts, whole);
  show(mark, footprint > 0);
  mark.style.left = `${whole ? Math.min(100, (100 * footprint) / whole) : 0}%`;
  fill(
    legend,
    named,
    (part) => part.kind,
    (part) => element("div", {}, element("dt", { class: part.kind }, part.name), element("dd")),
    (row, part) => write(row.lastChild, bytes(part.value)),
  );
  write(footnote, note);
}

function makeShares(box) {
  const bar = element("div", { class: "bar tall" });
  box.append(
    element(
      "div",
      { class: "shares", "aria-hidden": "true" },
      bar,
      element("span", { class: "mark" }),
    ),
    element("dl", { class: "legend" }),
    element("p", { class: "small" }),
  );
}

function showModel(health) {
  const { engine, speculation } = health;
  write(byId("model-name"), health.model);
  fillPairs(byId("model"), [
    ["Repository", health.repo],
    ["Context", plural(health.context_tokens, "token")],
    ["KV precision", engine && (engine.kv_bits ? `${engine.kv_bits} bits` : "as computed")],
    ["Thinking", health.thinking],
    ["Speculation", speculation && speculationText(speculation)],
    ["Tokens a step", engine?.tokens_per_step ? engine.tokens_per_step.toFixed(2) : ""],
    ["Drafts accepted", engine && draftsText(engine.drafts)],
    ["Preempted", engine?.preempted == null ? "" : count(engine.preempted)],
    ["Idle unload", health.idle_unload ? `after ${health.idle_unload} min` : "never"],
    ["Worker restarts", restartsText(health)],
    ["Device", health.device],
  ]);
  const shown = health.shows_content ? "; show_content is on: texts are kept in memory" : "";
  write(byId("about"), `pensieve ${health.version}, process ${health.pid}${shown}`);
}

function speculationText({ reason, rows, ratio, has_head: hasHead }) {
  const times = `${rows} tokens at once take ${ratio.toFixed(1)} times as long as one`;
  const texts = {
    pays: `on${hasHead ? ", with MTP" : ""}: ${times}`,
    no_width_pays: `off, cannot pay: ${times}`,
    not_measured: "off: its steps could not be timed",
    caches: "off: this model’s caches cannot drop refused tokens",
    setting: "off by the setting",
  };
  return texts[reason] ?? reason;
}

function draftsText(drafts) {
  const sources = Object.values(drafts ?? {});
  const sum = (name) => sources.reduce((total, source) => total + source[name], 0);
  return sum("drafted")
    ? `${percent(sum("accepted"), sum("drafted"))} of ${count(sum("drafted"))}`
    : "";
}

function restartsText({ restarts, restarts_by_cause: causes }) {
  const named = Object.entries(causes ?? {}).filter(([, times]) => times > 0);
  const list = named.map(([cause, times]) => `${cause.replaceAll("_", " ")} ${times}`).join(", ");
  return list ? `${restarts} (${list})` : String(restarts);
}

// Several engines, each a row.
function showEngines(replicas) {
  show(byId("engines-panel"), replicas.length > 0);
  fill(byId("engines"), replicas, (replica) => replica.name, makeEngine, updateEngine);
}

function makeEngine() {
  const numbers = Array.from({ length: 5 }, () => element("td", { class: "n" }));
  return element("tr", {}, element("th", { scope: "row" }), element("td"), ...numbers);
}

function updateEngine(row, { name, state, detail, ...figures }) {
  const texts = [
    name,
    detail ? `${state}: ${detail}` : state,
    count(figures.in_flight),
    figures.queued == null ? NONE : count(figures.queued),
    rate(figures.tokens_per_second || null),
    figures.worker_bytes ? bytes(figures.worker_bytes) : NONE,
    count(figures.restarts),
  ];
  texts.forEach((text, at) => write(row.cells[at], text));
}
