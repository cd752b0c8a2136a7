// Reads the log in the three ways that there are, and prints each message as a line of JSON: live only, state and follow up to
// where that has caught up, every event. Arguments: the server's URL and the tenant. After {"ready": true} a plain subscription
// is in place, and something has to happen: an event, a state and a watermark end that part.
import { AckPolicy, DeliverPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";

const [url, tenant] = process.argv.slice(2);
const stream = "AGENT_EVENTS";

function print(way, seq, m) {
  const headers = {};
  for (const name of m.headers?.keys() ?? []) headers[name] = m.headers.values(name);
  const e = m.json();
  console.log(JSON.stringify({ way, seq, subject: m.subject, headers, body: m.string(), agent: e.subject ?? "", id: e.id ?? "" }));
}

const nc = await connect({ servers: url });
const js = jetstream(nc);

const live = nc.subscribe("agent.>");
await nc.flush();
console.log(JSON.stringify({ ready: true }));
const missing = new Set(["event", "state", "watermark"]);
for await (const m of live) {
  print("live", Number(m.headers.get("Nats-Sequence")), m);
  const kind = m.subject.split(".")[1];
  missing.delete(["online", "offline", "updated"].includes(kind) ? "event" : kind);
  if (missing.size === 0) break;
}

const roster = await js.consumers.get(stream, {
  filter_subjects: [`agent.state.${tenant}.*`, `agent.watermark.${tenant}`, `agent.health.${tenant}`],
  deliver_policy: DeliverPolicy.LastPerSubject,
});
const latest = await roster.consume();
for await (const m of latest) {
  print("latest", m.seq, m);
  if (m.info.pending === 0) break;
}

// Half of the events on one connection, the others on the next: the consumer remembers.
const name = "readertools";
const jsm = await jetstreamManager(nc);
const { num_pending: pending } = await jsm.consumers.add(stream, {
  durable_name: name,
  filter_subjects: ["agent.online.>", "agent.offline.>", "agent.updated.>"],
  ack_policy: AckPolicy.Explicit,
  deliver_policy: DeliverPolicy.All,
});
async function fetch(nc, n) {
  const c = await jetstream(nc).consumers.get(stream, name);
  const msgs = await c.fetch({ max_messages: n, expires: 10_000 });
  for await (const m of msgs) {
    print("events", m.seq, m);
    if (!(await m.ackAck())) throw new Error(`message ${m.seq}: not acknowledged`);
  }
}
const half = Math.floor(pending / 2);
await fetch(nc, half);
await nc.drain();
const again = await connect({ servers: url });
await fetch(again, pending - half);
await again.drain();
