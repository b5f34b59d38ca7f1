// What `GET /activity` reports: what runs and waits, the engine's memory, the model and its limits.

const NOTICES = {
  ready: () => "",
  asleep: () =>
    "The model sleeps: it was unloaded while idle. The next request loads it again," +
    " which takes some seconds.",
  loading: ({ detail }) => `The model is being loaded. ${detail}`,
  failed: ({ detail }) => `The model does not run. ${detail} pensieve doctor looks for the cause.`,
};
const EMPTY = {
  ready: "Nothing runs. A request shows up here while it is answered.",
  asleep: "Nothing runs. The model sleeps until the next request.",
  loading: "Nothing runs while the model is being loaded.",
  failed: "Nothing runs.",
};
const PHASES = { reading: "receiving", queued: "waiting", prompt: "prompt", answer: "answering" };
const PRIORITIES = { agent: "sub-agent", side: "side request", batch: "batch" };

function showActivity({ health, requests }) {
  showState(health.status, health.status, NOTICES[health.status](health));
  showModel(health);
  showTiles(health, requests);
  showMemory(health);
  showEngines(health.replicas ?? []);
  fill(byId("requests"), requests, (request) => request.id, makeRequest, updateRequest);
  write(byId("requests-empty"), EMPTY[health.status]);
  show(byId("requests-empty"), requests.length === 0);
}

function showState(kind, name, notice) {
  set(byId("state"), "data-state", kind);
  write(byId("state-name"), name);
  write(byId("notice"), notice);
}

function showTiles({ engine }, requests) {
  const waiting = requests.filter((request) => request.phase === "queued").length;
  write(byId("running"), requests.length - waiting);
  write(byId("waiting"), `${waiting} waiting`);
  write(byId("decode-speed"), rate(engine?.tokens_per_second || null));
  const prompt = requests.find((request) => request.prompt_tokens_per_second);
  const latest = engine?.prompt_tokens_per_second || null;
  write(byId("prompt-speed"), rate(prompt?.prompt_tokens_per_second ?? latest));
}

// Requests.

function makeRequest(request) {
  const label = `Prompt of ${request.client}, ${request.id}`;
  return element(
    "li",
    {},
    element(
      "p",
      { class: "line" },
      element("span", { class: "who" }),
      element("span", { class: "pace" }),
    ),
    element("div", { class: "bar", role: "progressbar", "aria-label": label, "aria-valuemin": 0 }),
    element(
      "p",
      { class: "line small" },
      element("span", { class: "prompt" }),
      element("span", { class: "age" }),
    ),
  );
}

function updateRequest(row, request) {
  const [who, pace, prompt, age] = ["who", "pace", "prompt", "age"].map((name) =>
    row.querySelector(`.${name}`),
  );
  set(row, "data-phase", request.phase);
  fill(
    who,
    labelsOf(request),
    ([kind]) => kind,
    ([kind]) => element("span", { class: kind }),
    (span, [, text]) => write(span, text),
  );
  write(pace, paceOf(request));
  write(prompt, promptOf(request));
  write(age, seconds(Math.floor(request.age_s)));
  updateProgress(row.querySelector(".bar"), request);
}

function labelsOf(request) {
  const labels = [
    ["phase", PHASES[request.phase] ?? request.phase],
    ["client", request.client],
    ["session", request.session],
    ["priority", PRIORITIES[request.priority]],
  ];
  return labels.filter(([, text]) => text);
}

function paceOf(request) {
  if (request.phase === "prompt")
    return request.remaining_s == null ? "" : `${seconds(Math.ceil(request.remaining_s))} left`;
  if (request.phase === "answer") return `${rate(request.tokens_per_second)} tokens/s`;
  return "";
}

function promptOf(request) {
  const { phase, prompt_tokens: all, processed_tokens: done, cached_tokens: cached } = request;
  if (all == null) return request.route;
  const pictures = request.pictures ? ` with ${plural(request.pictures, "picture")}` : "";
  const fromCache = `${pictures}${cached ? `, ${count(cached)} from the cache` : ""}`;
  const pace = request.prompt_tokens_per_second
    ? ` at ${rate(request.prompt_tokens_per_second)}/s`
    : "";
  if (phase === "prompt") return `${count(done)} of ${count(all)} prompt tokens${fromCache}${pace}`;
  if (phase === "answer") return `${answerOf(request)}; prompt ${count(all)}${fromCache}`;
  return `${count(all)} prompt tokens${fromCache}`;
}

function answerOf({ output_tokens: out, max_tokens: most }) {
  return `${plural(out, "token")} of at most ${count(most)}`;
}

function updateProgress(bar, request) {
  const all = request.prompt_tokens;
  const done = request.phase === "answer" ? all : (request.processed_tokens ?? 0);
  const cached = Math.min(request.cached_tokens ?? 0, done ?? 0);
  fillBar(
    bar,
    [
      { kind: "cached", value: cached },
      { kind: "processed", value: (done ?? 0) - cached },
    ],
    all,
  );
  set(bar, "aria-valuemax", all ?? 1);
  set(bar, "aria-valuenow", done ?? 0);
  set(bar, "aria-valuetext", [promptOf(request), paceOf(request)].filter(Boolean).join(", "));
}
