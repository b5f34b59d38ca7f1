// Uses Vercel's AI SDK, one case per run: `node ai_sdk.cjs <package> <case> <url> <key>`.
// NODE_PATH is the folder of the installed packages. Prints the results as one line of JSON.

const { generateText, streamText, tool, stepCountIs, Output } = require("ai");
const { createOpenAI } = require("@ai-sdk/openai");
const { createOpenAICompatible } = require("@ai-sdk/openai-compatible");
const { z } = require("zod");

const [, , kind, name, url, apiKey] = process.argv;
const baseURL = `${url}/v1`;
const models = {
  openai: () => createOpenAI({ baseURL, apiKey }).chat("m"),
  responses: () => createOpenAI({ baseURL, apiKey })("m"),
  compatible: () =>
    createOpenAICompatible({
      name: "pensieve",
      baseURL,
      apiKey,
      includeUsage: true,
      supportsStructuredOutputs: true,
    })("m"),
};

const cases = {
  async tools(model) {
    const clock = tool({
      description: "Tells the time.",
      inputSchema: z.object({ zone: z.string() }),
      execute: async ({ zone }) => `noon in ${zone}`,
    });
    const prompt = "What time is it in 'Rome'?";
    // So long that the new tokens of the second request are few.
    const instructions = "Be brief. ".repeat(250);
    const options = { model, instructions, prompt, tools: { clock } };
    const run = streamText({ ...options, stopWhen: stepCountIs(3) });
    const pieces = [];
    for await (const piece of run.textStream) pieces.push(piece);
    const [first, second] = await run.steps;
    return {
      pieces,
      calls: first.toolCalls.map(({ toolName, input }) => ({ toolName, input })),
      reasons: [first.finishReason, second.finishReason],
      usage: second.usage,
    };
  },
  async object(model) {
    const schema = z.object({ city: z.string(), degrees: z.number() });
    const { output } = await generateText({
      model,
      prompt: "How is the weather?",
      output: Output.object({ schema }),
    });
    return output;
  },
  async thought(model) {
    const { text, reasoningText } = await generateText({ model, prompt: "hello" });
    return { text, reasoningText };
  },
  async error(model) {
    try {
      await generateText({ model, prompt: "x".repeat(9000), maxRetries: 0 });
    } catch ({ statusCode, message, isRetryable }) {
      return { statusCode, message, isRetryable };
    }
  },
  async broken(model) {
    const errors = [];
    const run = streamText({
      model,
      prompt: "hello",
      maxRetries: 0,
      onError: ({ error }) => errors.push(error.message ?? String(error)),
    });
    for await (const _ of run.textStream);
    return { errors };
  },
};

cases[name](models[kind]()).then((result) => console.log(JSON.stringify(result)));
