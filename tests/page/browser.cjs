// Drives the system's Chromium. Each line on standard input is a command in JSON, {do, ...};
// each line on standard output is its answer, {value} or {error}.

const { createInterface } = require("node:readline");
const { chromium } = require("playwright-core");
const axe = require("axe-core");

const TIMEOUT_MS = 30_000;
let browser;
let page;
let errors = [];
let requests = [];

const commands = {
  // A new tab without any storage. With `isPaused`, its clock moves by the command `pass` alone.
  // `injected` is put at the end of the document, as if the server had sent it.
  async open({ url, width = 1280, height = 900, scheme = "light", isPaused, injected }) {
    await page?.context().close();
    const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme });
    context.setDefaultTimeout(TIMEOUT_MS);
    page = await context.newPage();
    [errors, requests] = [[], []];
    page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
    page.on("pageerror", (error) => errors.push(String(error)));
    page.on("request", (request) => requests.push(request.url()));
    if (injected) await page.route(url, (route) => inject(route, injected));
    if (isPaused) await page.clock.install();
    await page.goto(url);
    if (isPaused) await page.clock.pauseAt(Date.now() + 3_600_000);
  },
  pass: ({ seconds }) => page.clock.runFor(1000 * seconds),
  resize: (size) => page.setViewportSize(size),
  scheme: ({ scheme }) => page.emulateMedia({ colorScheme: scheme }),
  evaluate: ({ code }) => page.evaluate(code),
  // The driver's own waiting evaluates in the page, which its policy forbids.
  async wait({ code }) {
    const end = Date.now() + TIMEOUT_MS;
    while (!(await page.evaluate(code))) {
      if (Date.now() > end)
        throw new Error(
          `never true; the page says: ${(await page.innerText("body")).slice(0, 2000)}`,
        );
      await new Promise((done) => setTimeout(done, 20));
    }
  },
  type: ({ text }) => page.keyboard.type(text),
  press: ({ key }) => page.keyboard.press(key),
  observed: () => ({ errors, requests }),
  picture: async ({ path, whole = true }) =>
    void (await page.screenshot({ path, fullPage: whole })),
  // What axe finds: a rule and the elements that break it.
  async audit() {
    await page.evaluate(axe.source);
    const { violations } = await page.evaluate(
      "axe.run(document, { resultTypes: ['violations'] })",
    );
    return violations.map(({ id, nodes }) => [id, nodes.map((node) => node.target.join(" "))]);
  },
};

async function inject(route, html) {
  const response = await route.fetch();
  const body = (await response.text()).replace("</body>", `${html}</body>`);
  await route.fulfill({ response, body });
}

async function main() {
  browser = await chromium.launch({ executablePath: process.argv[2] });
  for await (const line of createInterface({ input: process.stdin })) {
    const { do: name, ...options } = JSON.parse(line);
    const answer = await Promise.resolve(commands[name](options)).then(
      (value) => ({ value: value ?? null }),
      (error) => ({ error: String(error) }),
    );
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
  await browser.close();
}

main();
