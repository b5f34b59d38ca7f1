// Uses Anthropic's TypeScript client, one case per run: `node typescript.cjs <case> <url> <key>`.
// NODE_PATH is the folder of the installed client. Prints the results as one line of JSON.

const Anthropic = require("@anthropic-ai/sdk");
const { toFile } = Anthropic;

const [, , name, baseURL, apiKey] = process.argv;
const CALL = { model: "m", max_tokens: 50, messages: [{ role: "user", content: "hello" }] };

const connect = (options = {}) => new Anthropic({ baseURL, apiKey, maxRetries: 0, ...options });

async function caught(promise) {
  try {
    return { answered: await promise };
  } catch (error) {
    const { status, requestID, type, message } = error;
    const { name } = error.constructor;
    return { name, status, requestID, type, message, errorCode: error.errorCode };
  }
}

async function all(list) {
  const items = [];
  for await (const item of list) items.push(item);
  return items;
}

const cases = {
  async create(client) {
    const message = await client.messages.create(CALL);
    return { message, requestID: message._request_id };
  },

  async stream(client) {
    const events = { text: "", kinds: [], blocks: [], whole: null };
    const stream = client.messages
      .stream(CALL)
      .on("text", (delta) => (events.text += delta))
      .on("streamEvent", (event) => events.kinds.push(event.type))
      .on("contentBlock", (block) => events.blocks.push(block))
      .on("message", (message) => (events.whole = message));
    const final = await stream.finalMessage();
    return { ...events, final, finalText: await stream.finalText() };
  },

  async rawStream(client) {
    const events = await all(await client.messages.create({ ...CALL, stream: true }));
    return { kinds: events.map((event) => event.type), events };
  },

  async countTokens(client) {
    const { model, messages } = CALL;
    const counted = await client.messages.countTokens({ model, messages, system: "be brief" });
    const beta = await client.beta.messages.countTokens({ model, messages, system: "be brief" });
    const { usage } = await client.messages.create({ ...CALL, system: "be brief" });
    return { counted, beta, usage };
  },

  async models(client) {
    const listed = await all(client.models.list({ limit: 1 }));
    const found = await Promise.all(listed.map((model) => client.models.retrieve(model.id)));
    return { listed, found, absent: await caught(client.models.retrieve("unknown")) };
  },

  async batches(client) {
    const { batches } = client.messages;
    const bad = { ...CALL, max_tokens: -1 };
    const requests = [{ custom_id: "good", params: CALL }, { custom_id: "bad", params: bad }];
    const made = await batches.create({ requests });
    let batch = made;
    while (batch.processing_status !== "ended") batch = await batches.retrieve(made.id);
    const results = await all(await batches.results(made.id));
    const listed = await all(batches.list({ limit: 1 }));
    const canceled = await batches.cancel(made.id);
    const deleted = await batches.delete(made.id);
    const absent = await caught(batches.retrieve(made.id));
    return { made, batch, results, listed, canceled, deleted, absent };
  },

  async files(client) {
    const type = "text/markdown";
    const upload = await toFile(Buffer.from("Once upon"), "story.md", { type });
    const file = await client.files.upload({ file: upload });
    const content = await (await client.files.download(file.id)).text();
    const listed = await all(client.files.list());
    const document = { type: "document", source: { type: "file", file_id: file.id } };
    await client.messages.create({ ...CALL, messages: [{ role: "user", content: [document] }] });
    const deleted = await client.files.delete(file.id);
    const absent = await caught(client.files.retrieveMetadata(file.id));
    return { file, content, listed, deleted, absent };
  },

  async thread(client) {
    const thread = client.beta.messages.thread({ model: "m", max_tokens: 50, system: "be brief" });
    await thread.send({ role: "user", content: "hello" });
    const reply = await thread.stream({ role: "user", content: "where?" }).finalMessage();
    const unknown = { type: "continue", previous_message_id: "msg_01unknown" };
    const absent = await caught(client.beta.messages.create({ ...CALL, thread: unknown }));
    return { reply, absent };
  },

  async toolRunner(client) {
    const tool = {
      name: "get_weather",
      description: "Tells it.",
      input_schema: { type: "object", properties: {} },
      run: () => "not called",
      parse: (input) => input,
    };
    const runner = client.beta.messages.toolRunner({ ...CALL, tools: [tool] });
    return { final: await runner.runUntilDone() };
  },

  async errors(client) {
    const messages = (text) => [{ role: "user", content: text }];
    const huge = "x".repeat(32 * 1024 * 1024);
    const forbidden = { headers: { origin: "http://evil.test" } };
    return {
      bad: await caught(client.messages.create({ ...CALL, max_tokens: -1 })),
      long: await caught(client.messages.create({ ...CALL, messages: messages("x".repeat(5000)) })),
      large: await caught(client.messages.create({ ...CALL, messages: messages(huge) })),
      key: await caught(connect({ apiKey: "wrong" }).messages.create(CALL)),
      forbidden: await caught(client.messages.create(CALL, forbidden)),
      method: await caught(client.post("/v1/models")),
    };
  },

  async oneCall(client) {
    return caught(client.messages.create(CALL));
  },

  async oneStream(client) {
    const stream = client.messages.stream(CALL);
    let text = "";
    stream.on("text", (delta) => (text += delta));
    const outcome = await caught(stream.finalMessage());
    return { ...outcome, text };
  },

  async retried() {
    const beganAt = performance.now();
    const answer = await caught(connect({ maxRetries: 2 }).messages.create(CALL));
    return { ...answer, elapsedMs: performance.now() - beganAt };
  },

  async aborted(client) {
    const stream = client.messages.stream(CALL);
    stream.on("text", () => stream.abort());
    return caught(stream.finalMessage());
  },

  async embedded() {
    const greedy = { ...CALL, model: "smollm2-135m", max_tokens: 24, temperature: 0 };
    greedy.messages = [{ role: "user", content: "What is the capital of France?" }];
    const client = connect();
    const { max_tokens, temperature, ...countable } = greedy;
    return {
      whole: await client.messages.create(greedy),
      streamed: await client.messages.stream(greedy).finalMessage(),
      counted: await client.messages.countTokens(countable),
      listed: await all(client.models.list()),
    };
  },
};

cases[name](connect()).then(
  (result) => console.log(JSON.stringify(result)),
  (error) => {
    console.error(error);
    process.exitCode = 1;
  },
);
