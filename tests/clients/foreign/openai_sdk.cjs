// Uses OpenAI's npm package, all cases at once: `node openai_sdk.cjs <url> <key>`.
// NODE_PATH is the folder of the installed packages. Prints the results as one line of JSON.

const { OpenAI } = require("openai");
const helpers = require("openai/helpers/zod");
const { z } = require("zod");

const [, , url, apiKey] = process.argv;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const { completions } = client.chat;
const asked = (content) => ({ model: "m", messages: [{ role: "user", content }] });
const Weather = z.object({ city: z.string(), degrees: z.number() });
const Zone = z.object({ zone: z.string() });
const TIME = "What time is it in 'Rome'?";

async function all(list) {
  const items = [];
  for await (const item of list) items.push(item);
  return items;
}

async function caught(promise) {
  try {
    return { answered: await promise };
  } catch (error) {
    const { status, requestID, type, code, param, message } = error;
    return { name: error.constructor.name, status, requestID, type, code, param, message };
  }
}

const cases = {
  async chat() {
    const { data, request_id } = await completions.create(asked("hello")).withResponse();
    return { ...data, request_id };
  },
  chatChunks: async () =>
    all(
      await completions.create({
        ...asked("hello"),
        stream: true,
        stream_options: { include_usage: true },
      }),
    ),
  async chatHelper() {
    const pieces = [];
    const stream = completions.stream(asked("hello")).on("content", (delta) => pieces.push(delta));
    return { final: await stream.finalChatCompletion(), pieces };
  },
  async chatTools() {
    const inputs = [];
    const run = async (input) => {
      inputs.push(input);
      return "12:00";
    };
    const clock = helpers.zodFunction({ name: "clock", parameters: Zone, function: run });
    const runner = completions.runTools({ ...asked(TIME), stream: true, tools: [clock] });
    const text = await runner.finalContent();
    return { text, inputs, completions: runner.allChatCompletions() };
  },
  chatParse: async () =>
    completions.parse({
      ...asked("How is the weather?"),
      response_format: helpers.zodResponseFormat(Weather, "weather"),
    }),
  response: async () => client.responses.create({ model: "m", input: "hello" }),
  responseEvents: async () =>
    all(await client.responses.create({ model: "m", input: "hello", stream: true })),
  async responseHelper() {
    const pieces = [];
    const stream = client.responses
      .stream({ model: "m", input: "hello", reasoning: { summary: "auto" } })
      .on("response.output_text.delta", ({ delta }) => pieces.push(delta));
    return { final: await stream.finalResponse(), pieces };
  },
  async responseTools() {
    const clock = helpers.zodResponsesFunction({ name: "clock", parameters: Zone });
    const call = { model: "m", instructions: "Be brief. ".repeat(250), tools: [clock] };
    const first = await client.responses.parse({ ...call, input: TIME });
    const made = first.output.find(({ type }) => type === "function_call");
    const output = { type: "function_call_output", call_id: made.call_id, output: "12:00" };
    const second = await client.responses.create({
      ...call,
      input: [output],
      previous_response_id: first.id,
    });
    return { input: made.parsed_arguments, second };
  },
  responseParse: async () =>
    client.responses.parse({
      model: "m",
      input: "How is the weather?",
      text: { format: helpers.zodTextFormat(Weather, "weather") },
    }),
  async storedResponse() {
    const created = await client.responses.create({ model: "m", input: "hello" });
    const retrieved = await client.responses.retrieve(created.id);
    const items = await all(client.responses.inputItems.list(created.id));
    const counted = await client.responses.inputTokens.count({ model: "m", input: "hello" });
    await client.responses.delete(created.id);
    const absent = await caught(client.responses.retrieve(created.id));
    return { created, retrieved, items, counted, absent };
  },
  async models() {
    const listed = await all(client.models.list());
    return { listed, found: await Promise.all(listed.map(({ id }) => client.models.retrieve(id))) };
  },
  text: async () => all(await client.completions.create({ model: "m", prompt: "def", stream: true })),
  brokenChat: async () => caught(completions.stream(asked("break off")).finalContent()),
  brokenResponse: async () =>
    caught(client.responses.stream({ model: "m", input: "break off" }).finalResponse()),
};

const results = Object.entries(cases).map(async ([name, run]) => [name, await caught(run())]);
Promise.all(results).then((pairs) => console.log(JSON.stringify(Object.fromEntries(pairs))));
