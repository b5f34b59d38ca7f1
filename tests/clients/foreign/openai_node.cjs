// Uses OpenAI's TypeScript client, one case per run: `node openai_node.cjs <case> <url> <key>`.
// NODE_PATH is the folder of the installed client. Prints the results as one line of JSON.

const OpenAI = require("openai");

const [, , name, url, apiKey] = process.argv;
const CALL = { model: "m", messages: [{ role: "user", content: "hello" }] };
const LONG = "x".repeat(5000);

const connect = (options = {}) =>
  new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0, ...options });

async function caught(promise) {
  try {
    return { answered: await promise };
  } catch (error) {
    const { status, requestID, type, code, param, message } = error;
    return { name: error.constructor.name, status, requestID, type, code, param, message };
  }
}

const cases = {
  // Every refusal, by the name of its row in the test.
  async refused(client) {
    const create = (fields, options) => client.chat.completions.create({ ...CALL, ...fields }, options);
    const respond = (fields) => client.responses.create({ model: "m", input: "hello", ...fields });
    return {
      invalid: await caught(create({ messages: [{ role: "robot" }] })),
      tooLong: await caught(create({ messages: [{ role: "user", content: LONG }] })),
      tooLongInput: await caught(respond({ input: LONG })),
      key: await caught(connect({ apiKey: "wrong" }).models.list()),
      forbidden: await caught(create({}, { headers: { origin: "http://evil.test" } })),
      path: await caught(client.get("/assistants")),
      model: await caught(client.models.retrieve("gpt-x")),
      response: await caught(client.responses.retrieve("resp_x")),
      item: await caught(respond({ input: [{ type: "item_reference", id: "rs_x" }] })),
      previous: await caught(respond({ previous_response_id: "resp_x" })),
      embeddings: await caught(client.embeddings.create({ model: "m", input: "x" })),
      method: await caught(client.get("/chat/completions")),
      large: await caught(create({ messages: [{ role: "user", content: "x".repeat(2 ** 25) }] })),
    };
  },

  // The engine fails in the order of these requests, before the first byte, then in the stream.
  async failing(client) {
    const create = (fields) => client.chat.completions.create({ ...CALL, ...fields });
    const failed = { busy: await caught(create()), failed: await caught(create({ stream: true })) };
    let text = "";
    const streamed = await caught(
      create({ stream: true }).then(async (stream) => {
        for await (const chunk of stream) text += chunk.choices[0].delta.content ?? "";
      }),
    );
    const retried = await connect({ maxRetries: 1 }).chat.completions.create(CALL);
    return { ...failed, streamed: { ...streamed, text }, retried: retried.choices[0].message.content };
  },
};

cases[name](connect()).then((result) => console.log(JSON.stringify(result)));
