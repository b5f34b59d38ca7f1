// What `GET /activity/history` reports: the last hour's speed, the last requests, doctor's findings
// and the log's tail.

const plots = {
  speed: new Plot(byId("speed"), {
    label: "Tokens per second of all answers in the last hour",
    empty: "No answer in the last hour.",
    columns: ["Time", "Median", "Lowest", "Highest"],
  }),
  first: new Plot(byId("first"), {
    label: "Seconds to the first token in the last hour",
    empty: "No answer in the last hour.",
    columns: ["Time", "Median", "Lowest", "Highest"],
  }),
  cache: new Plot(byId("cache"), {
    label: "Prompt tokens from the cache and processed ones, by request",
    empty: "No request since the server started.",
    columns: ["Ended", "Client", "Cached", "Processed"],
  }),
};

function showHistory(history) {
  const speed = {
    scale: (values) => linear(Math.max(1, ...values)),
    yText: short,
    text: (value) => `${rate(value)} tokens/s`,
    hasLine: true,
  };
  const first = {
    scale: logarithmic,
    yText: (value) => `${value} s`,
    text: seconds,
    hasLine: false,
  };
  plots.speed.draw(timeChart(history, history.speed, speed));
  plots.first.draw(timeChart(history, history.first_token, first));
  plots.cache.draw(cacheChart(history.recent));
  showHitRate(history.recent);
  showDiverged(history.recent);
  showRecent(history.recent);
  showFindings(history.findings);
  showLog(history.log);
}

// Cache hits.

const isCounted = (request) => request.prompt_tokens != null && request.cached_tokens != null;

function showHitRate(recent) {
  const counted = recent.filter(isCounted);
  const sum = (name) => counted.reduce((total, request) => total + request[name], 0);
  write(byId("hit-rate"), percent(sum("cached_tokens"), sum("prompt_tokens")));
  write(byId("hit-base"), counted.length ? `of ${plural(counted.length, "prompt")}` : "of prompts");
}

const SLOTS = 50;

function cacheChart(recent) {
  const turns = recent.filter(isCounted).slice(0, SLOTS).reverse();
  const place = (index) => (index + 0.5) / SLOTS;
  const offset = SLOTS - turns.length;
  const y = linear(Math.max(4, ...turns.map((turn) => turn.prompt_tokens)));
  const labelled = turns.length
    ? [
        [offset, clock(turns[0].ended_at)],
        [SLOTS - 1, clock(turns.at(-1).ended_at)],
      ]
    : [];
  return {
    x: place,
    xTicks: () => (offset < SLOTS - 12 ? labelled : labelled.slice(1)),
    y,
    yText: (value) => (value >= 1e4 ? `${value / 1e3}k` : count(value)),
    marks: (xOf, yOf, inner) =>
      turns.flatMap((turn, index) =>
        turnMarks(turn, xOf(offset + index), yOf, (0.72 * inner.width) / SLOTS),
      ),
    points: turns.map((turn, index) => ({ x: offset + index, text: turnText(turn) })),
    summary: turns.length ? turnText(turns.at(-1)) : "",
    rows: () =>
      turns
        .toReversed()
        .map((turn) => [
          exactClock(turn.ended_at),
          turn.client,
          count(turn.cached_tokens),
          count(turn.prompt_tokens - turn.cached_tokens),
        ]),
  };
}

function turnText({ cached_tokens: cached, prompt_tokens: all, client, ended_at: end }) {
  return `${percent(cached, all)} of ${count(all)} cached at ${exactClock(end)} for ${client}`;
}

function turnMarks(turn, x, yOf, width) {
  const block = (kind, from, to) =>
    svg("rect", {
      class: kind,
      x: x - width / 2,
      width,
      y: yOf(to),
      height: Math.max(0, yOf(from) - yOf(to)),
    });
  const blocks = [
    block("cached", 0, turn.cached_tokens),
    block("processed", turn.cached_tokens, turn.prompt_tokens),
  ];
  if (turn.diverged_at == null) return blocks;
  const y = yOf(turn.diverged_at);
  return [
    ...blocks,
    svg("line", { class: "cut", x1: x - width / 2 - 2, x2: x + width / 2 + 2, y1: y, y2: y }),
  ];
}

const MAX_DIVERGED = 4;

function showDiverged(recent) {
  const diverged = recent.filter((request) => request.diverged_at != null).slice(0, MAX_DIVERGED);
  show(byId("diverged-empty"), diverged.length === 0);
  fill(
    byId("diverged"),
    diverged,
    (request) => request.id,
    makeDiverged,
    () => {},
  );
}

function makeDiverged(request) {
  const { diverged_at: place, prompt_tokens: all, cached_tokens: cached } = request;
  const processed = `${count(all - cached)} processed`;
  return element(
    "li",
    {},
    element("span", {}, request.client),
    element("span", { class: "session" }, request.session ?? ""),
    element("span", { class: "small" }, `at token ${count(place)} of ${count(all)}; ${processed}`),
    element("span", { class: "small age" }, exactClock(request.ended_at)),
  );
}

// The last requests.

const COLUMNS = [
  ["", (request) => exactClock(request.ended_at)],
  ["", (request) => request.client],
  ["mono", (request) => request.session ?? NONE],
  ["", (request) => (request.is_client_gone ? "client left" : (request.status ?? NONE))],
  ["n", (request) => seconds(request.first_token_s)],
  ["n", (request) => seconds(request.total_s)],
  ["n", (request) => count(request.prompt_tokens)],
  ["n", (request) => percent(request.cached_tokens, request.prompt_tokens)],
  ["n", (request) => count(request.output_tokens)],
  ["n", (request) => rate(request.tokens_per_second)],
  ["n", (request) => seconds(request.queue_s)],
  ["n", (request) => seconds(request.prompt_s)],
  ["n", (request) => (request.drafted ? percent(request.accepted, request.drafted) : NONE)],
  ["n", (request) => request.wire],
];

const recentTable = byId("recent");

// A `<tbody>` for each request: a row of figures and, if the server shows content, one of texts.
function showRecent(recent) {
  show(byId("recent-empty"), recent.length === 0);
  const bodies = [...recentTable.tBodies];
  const known = new Map(bodies.map((body) => [body.dataset.id, body]));
  const wanted = recent.map((request) => known.get(request.id) ?? recentBody(request));
  const ids = new Set(recent.map((request) => request.id));
  for (const body of bodies) if (!ids.has(body.dataset.id)) body.remove();
  for (const body of wanted.reverse()) {
    const first = recentTable.tBodies[0] ?? null;
    if (!body.isConnected) recentTable.insertBefore(body, first);
  }
}

function recentBody(request) {
  const cells = COLUMNS.map(([kind, text]) =>
    element("td", { class: kind || null }, String(text(request))),
  );
  const isBad = request.status >= 400 || request.is_client_gone;
  const body = element(
    "tbody",
    { "data-id": request.id },
    element("tr", { class: isBad ? "bad" : null }, ...cells),
  );
  if (request.content) body.append(contentRow(request.content));
  return body;
}

function contentRow({ prompt, answer }) {
  const texts = [
    ["Prompt", prompt],
    ["Answer", answer],
  ].flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text ?? NONE)]);
  const details = element(
    "details",
    {},
    element("summary", {}, "Text"),
    element("dl", { class: "content" }, ...texts),
  );
  return element("tr", { class: "texts" }, element("td", { colspan: COLUMNS.length }, details));
}

// Findings.

const SEVERITIES = { error: "problem" };

function showFindings(findings) {
  show(byId("findings-empty"), findings.length === 0);
  fill(
    byId("findings"),
    findings,
    (finding) => `${finding.severity} ${finding.title} ${finding.explanation}`,
    makeFinding,
    () => {},
  );
}

function makeFinding({ severity, title, explanation, fix }) {
  const head = element(
    "p",
    { class: "line" },
    element("b", {}, title),
    element("span", { class: "severity" }, SEVERITIES[severity] ?? severity),
  );
  const row = element("li", { "data-severity": severity }, head, element("p", {}, explanation));
  if (fix)
    row.append(element("pre", { tabindex: 0, "aria-label": "Commands" }, element("code", {}, fix)));
  return row;
}

// The log. New lines are added below; one who has scrolled up stays there.

let logged = [];

function showLog(lines) {
  const log = byId("log");
  const isAtEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
  const fresh = freshLines(logged, lines);
  logged = lines;
  if (fresh.length === 0) return;
  log.append(...fresh.map(logLine));
  while (log.childElementCount > lines.length) log.firstElementChild.remove();
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

// The lines after those that `old` ends with.
function freshLines(old, lines) {
  for (let skipped = 0; skipped < old.length; skipped += 1) {
    const shared = old.length - skipped;
    if (shared <= lines.length && old.slice(skipped).every((line, index) => line === lines[index]))
      return lines.slice(shared);
  }
  return lines;
}

function logLine(line) {
  const level = /\b(WARNING|ERROR|CRITICAL)\b/.exec(line)?.[1] ?? "";
  return element("p", { class: level ? `log-${level.toLowerCase()}` : null }, readable(line));
}

// A line of a log in JSON as one of a log in text.
function readable(line) {
  if (!line.startsWith("{")) return line;
  try {
    const { time, level, request_id, message } = JSON.parse(line);
    return [time, level, request_id, message].filter(Boolean).join(" ");
  } catch {
    return line;
  }
}
