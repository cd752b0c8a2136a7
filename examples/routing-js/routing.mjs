// A small routing engine: it gives video calls to agents that are on duty, by what rollcall's stream says. It does what
// examples/routing does in Go; README.md says how to run it.

import { readFileSync } from "node:fs";
import { open, rename } from "node:fs/promises";
import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { connect, errors } from "@nats-io/transport-node";
import { Roster } from "rollcall-schemas";
import { signIn, signInOptions } from "./signin.mjs";

const videoCalls = "10"; // the business type of video-call agents

const { values: flags } = parseArgs({
  options: {
    ...signInOptions,
    tenant: { type: "string", default: "886" },
    listen: { type: "string", default: "127.0.0.1:8090" },
    calls: { type: "string", default: "routing-calls.json" },
  },
});
const listen = new URL(`http://${flags.listen}`);
const log = (text) => console.error(new Date().toISOString(), text);

const { connection, domain } = (() => {
  try {
    return signIn(flags);
  } catch (err) {
    log(err.message);
    process.exit(1);
  }
})();
const roster = new Roster(flags.tenant, { domain });
const calls = readCalls(); // who has which call: agentId by the caller's id; the same as in the file

function readCalls() {
  try {
    return new Map(Object.entries(JSON.parse(readFileSync(flags.calls, "utf8"))));
  } catch (err) {
    if (err.code === "ENOENT") return new Map();
    throw new Error(`read the calls from ${flags.calls}: ${err.message}`);
  }
}

// save replaces the file in one step, so that it is whole at any moment.
async function save() {
  const file = await open(`${flags.calls}.new`, "w", 0o600);
  try {
    await file.writeFile(JSON.stringify(Object.fromEntries(calls)));
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(`${flags.calls}.new`, flags.calls);
}

// available are the agents on duty for video calls, by agentId, busy ones included.
function available() {
  const load = new Map();
  for (const id of calls.values()) load.set(id, (load.get(id) ?? 0) + 1);
  return [...roster.online(videoCalls)]
    .map(([agentId, { data }]) => ({
      agentId,
      name: data.agent.agentName ?? "",
      revision: data.revision,
      capacity: data.agent.capacity ?? 1, // an agent without one takes a call at a time
      calls: load.get(agentId) ?? 0,
    }))
    .sort((a, b) => (BigInt(a.agentId) < BigInt(b.agentId) ? -1 : 1));
}

// free is the agent that has most of its capacity left, of several any; undefined if nobody has any.
function free() {
  const least = available()
    .filter((a) => a.calls < a.capacity)
    .map((a) => ({ ...a, load: a.calls / a.capacity, tie: Math.random() }))
    .sort((a, b) => a.load - b.load || a.tie - b.tie);
  return least[0];
}

async function putCall(id) {
  if (calls.has(id)) return [200, { agentId: calls.get(id) }]; // asked again
  const error = roster.problem();
  if (error) return [503, { error }];
  const agent = free();
  if (!agent) return [409, { error: "nobody is free" }];
  calls.set(id, agent.agentId);
  try {
    await save();
  } catch (err) {
    calls.delete(id);
    throw err;
  }
  return [201, { agentId: agent.agentId }];
}

async function deleteCall(id) {
  const had = calls.get(id);
  calls.delete(id);
  try {
    await save();
  } catch (err) {
    if (had !== undefined) calls.set(id, had);
    throw err;
  }
  return [204];
}

function getAgents() {
  return [200, {
    error: roster.problem() || undefined, // why not to trust it
    asOf: roster.watermark?.startedAt,
    health: roster.health?.state,
    agents: available(),
  }];
}

async function answer(request) {
  const [, path, id] = new URL(request.url, "http://localhost").pathname.split("/").map(decodeURIComponent);
  if (request.method === "GET" && path === "agents" && id === undefined) return getAgents();
  if (request.method === "PUT" && path === "calls" && id) return putCall(id);
  if (request.method === "DELETE" && path === "calls" && id) return deleteCall(id);
  return [404, { error: "there is GET /agents, and PUT and DELETE /calls/{id}" }];
}

// One request after the other, so that one call at a time is given to somebody.
let last = Promise.resolve();
const server = createServer((request, response) => {
  last = last.then(() => answer(request)).catch((err) => [500, { error: err.message }]).then(([status, body]) => {
    response.writeHead(status, { "Content-Type": "application/json" });
    response.end(body && JSON.stringify(body));
  });
});

server.listen({ host: listen.hostname, port: Number(listen.port) }, () => log(`answering at http://${flags.listen}`));

// A server that can't be reached now is tried again, for ever; one that does not let us in is not.
async function connected() {
  for (let told; ; await sleep(1_000)) {
    try {
      return await connect({ ...connection, name: "routing example", maxReconnectAttempts: -1, reconnectTimeWait: 1_000 });
    } catch (err) {
      if (err instanceof errors.AuthorizationError) throw err;
      if (err.message !== told) log(`connect to NATS: ${err.message}; trying again`);
      told = err.message;
    }
  }
}

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, async () => {
    await last; // what is being answered
    process.exit(0);
  });
}
try {
  const nc = await connected();
  await roster.run(nc, log);
  throw (await nc.closed()) ?? new Error("it was closed");
} catch (err) {
  log(`the connection to NATS has ended for good: ${err.message}`);
  process.exit(1);
}
