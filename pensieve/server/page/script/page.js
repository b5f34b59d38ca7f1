// Asks the server for its figures while the tab is seen, with the key that the tab keeps.

const KEY_NAME = "pensieve-key";
// A stream is on the page within a second. Each time costs the browser some milliseconds.
const POLL_MS = 900;
const HISTORY_MS = 5000;
const ACTIVITY_TIMEOUT_MS = 10_000;
// Its findings take seconds, once a minute.
const HISTORY_TIMEOUT_MS = 60_000;

class Refused extends Error {}
class Unanswered extends Error {}

// A header has bytes, not characters.
const headerOf = (key) => String.fromCharCode(...new TextEncoder().encode(key));

async function ask(path, timeoutMs) {
  const key = sessionStorage.getItem(KEY_NAME) ?? "";
  const options = {
    headers: { "x-api-key": headerOf(key) },
    cache: "no-store",
    signal: AbortSignal.timeout(timeoutMs),
  };
  try {
    const response = await fetch(path, options);
    const body = await response.json();
    if (response.ok) return body;
    if ([401, 403].includes(response.status)) throw new Refused(body.error.message);
  } catch (error) {
    if (error instanceof Refused) throw error;
  }
  throw new Unanswered();
}

class Poller {
  timer = 0;
  isAsking = false;
  isAskingHistory = false;
  historyAt = -Infinity;
  open = new Set();
  version = null;
  goneSince = null;

  // Asks now, if it may, and plans the next time.
  async run() {
    clearTimeout(this.timer);
    if (this.isAsking || document.hidden || !sessionStorage.getItem(KEY_NAME)) return;
    this.isAsking = true;
    const pause = await this.update().catch((error) => this.fail(error));
    this.isAsking = false;
    if (pause) this.timer = setTimeout(() => this.run(), pause);
  }

  async update() {
    const activity = await ask("/activity", ACTIVITY_TIMEOUT_MS);
    if (!sessionStorage.getItem(KEY_NAME)) return 0;
    this.goneSince = null;
    this.reloadIfNewer(activity.health.version);
    showBoard();
    showActivity(activity);
    if (this.isHistoryDue(activity)) this.refreshHistory();
    return POLL_MS;
  }

  // At a pace of its own, and as soon as a request has ended.
  isHistoryDue({ requests }) {
    const before = this.open;
    this.open = new Set(requests.map((request) => request.id));
    const hasEnded = [...before].some((id) => !this.open.has(id));
    return hasEnded || performance.now() - this.historyAt >= HISTORY_MS;
  }

  // Meanwhile activity is asked for. What fails here is asked again with the next activity.
  async refreshHistory() {
    if (this.isAskingHistory) return;
    this.isAskingHistory = true;
    try {
      const history = await ask("/activity/history", HISTORY_TIMEOUT_MS);
      this.historyAt = performance.now();
      showHistory(history);
    } catch (error) {
      if (!(error instanceof Unanswered || error instanceof Refused)) reportError(error);
    } finally {
      this.isAskingHistory = false;
    }
  }

  // The page of another version may not know this server's figures.
  reloadIfNewer(version) {
    if (this.version !== null && this.version !== version) location.reload();
    this.version = version;
  }

  fail(error) {
    if (error instanceof Refused) {
      sessionStorage.removeItem(KEY_NAME);
      askForKey(error.message);
      return 0;
    }
    if (!(error instanceof Unanswered)) {
      reportError(error);
      return POLL_MS;
    }
    this.goneSince ??= Date.now() / 1000;
    this.historyAt = -Infinity;
    showBoard();
    showState("gone", "no answer", goneNotice(exactClock(this.goneSince)));
    return POLL_MS;
  }
}

function goneNotice(since) {
  return (
    `No answer from pensieve since ${since}: it is stopped or starting.` +
    " This page tries again each second. pensieve start starts it."
  );
}

function showBoard() {
  const isUnlocked = byId("board").hidden;
  show(byId("key-panel"), false);
  show(byId("board"), true);
  show(byId("forget"), true);
  if (isUnlocked) byId("now-title").focus({ preventScroll: true });
}

function askForKey(reason) {
  const [form, board] = [byId("key-panel"), byId("board")];
  byId("key").value = "";
  show(board, false);
  show(byId("forget"), false);
  show(form, true);
  showState("locked", "locked", "");
  write(byId("key-error"), reason);
  byId("key").focus();
}

const poller = new Poller();

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = byId("key").value.trim();
  if (!key) return askForKey("Enter the key.");
  sessionStorage.setItem(KEY_NAME, key);
  poller.run();
});
byId("forget").addEventListener("click", () => {
  sessionStorage.removeItem(KEY_NAME);
  askForKey("");
});
document.addEventListener("visibilitychange", () => poller.run());

if (sessionStorage.getItem(KEY_NAME)) poller.run();
else askForKey("");
