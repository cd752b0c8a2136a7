// What rollcall's stream says of a tenant's agents: every agent's state first, then every change. It is the counterpart of the Go
// package schemas/follow. It runs in Node and in browsers.

import { AckPolicy, DeliverPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { delay, nanos } from "@nats-io/nats-core";

const stream = "AGENT_EVENTS";
const dataSchema = "urn:rollcall:agent-event:v1";
// The server makes a list of the states when the consumer is created. When it finds that one of them has been replaced since, it
// waits for any new message before it looks at the next one, after a mass change as good as for ever (seen with nats-server 2.15.2).
const stall = 2_000; // milliseconds that the next state may take to come, before a new consumer with a new list is made
const heartbeat = 5_000; // milliseconds; a consumer that has died with its server is noticed within about twice this time

export class Roster {
  // The last event of every agent, by agentId, removed agents included. Ids are strings: they may exceed 2^53, which is
  // where JSON.parse begins to round, so never take data.agent.agentId.
  agents = new Map();
  watermark = null; // up to when everything that the vendor showed has been published
  health = null; // how the vendor's listing fares
  #read = false; // agents, watermark and health are the stream's, and not the empty ones of the beginning
  #tenant;
  #options;

  // tenant is a string; domain, where there is one, the JetStream domain that has the stream.
  constructor(tenant, { domain } = {}) {
    this.#tenant = tenant;
    this.#options = { domain };
  }

  // problem says why the roster must not be acted on at a moment, and is empty where it may be. It compares with rollcall's
  // clock: keep the machines' clocks in step. It holds without a connection as well, since the watermark ages.
  problem(now = Date.now()) {
    if (!this.#read) return "the states have not been read from the stream yet";
    if (!this.watermark?.sweep) return "rollcall has not read the whole listing yet";
    // Until the next complete sweep is overdue, or the next watermark, whichever is sooner. A nextBy that is absent says nothing.
    const { startedAt, staleAfter, nextBy } = this.watermark;
    const due = Date.parse(nextBy) < Date.parse(staleAfter) ? nextBy : staleAfter;
    if (!(now <= Date.parse(due))) return `the picture is stale: it is as of ${startedAt}, and a newer one was due at ${due}`;
    return "";
  }

  // online are the agents on duty, of one type or of all: pairs of the agent's id and its last event.
  *online(type) {
    for (const [id, event] of this.agents) {
      if (event.data.online && (type === undefined || event.data.agent.type === type)) yield [id, event];
    }
  }

  // run keeps the roster until the connection is closed. Whatever else goes wrong is logged, and all states are read again:
  // what was missed meanwhile is only in them, and sequences mean nothing in a stream that was made anew.
  async run(nc, log = () => {}) {
    for (let wait = 250; !nc.isClosed(); wait = Math.min(2 * wait, 2_000)) {
      try {
        await this.#follow(nc, () => {
          wait = 250;
          log("all states have been read");
        }, log);
      } catch (err) {
        log(`read tenant ${this.#tenant} from the stream ${stream}: ${err.message}`);
      }
      await Promise.race([delay(wait), nc.closed()]);
    }
  }

  // follow reads the states and then the changes until something goes wrong, and throws that.
  async #follow(nc, complete, log) {
    await nc.flush(); // which waits for a connection; a request would time out
    const manager = await jetstreamManager(nc, { ...this.#options, checkAPI: false });
    const info = await manager.consumers.add(stream, {
      deliver_policy: DeliverPolicy.LastPerSubject,
      filter_subjects: [`agent.state.${this.#tenant}.*`, `agent.watermark.${this.#tenant}`, `agent.health.${this.#tenant}`],
      ack_policy: AckPolicy.None,
      mem_storage: true,
      num_replicas: 1,
      inactive_threshold: nanos(60_000),
    });
    const messages = await jetstream(nc, this.#options).consumers.getConsumerFromInfo(info).consume({ bind: true, max_messages: 500, idle_heartbeat: heartbeat });
    const watching = watch(nc, messages);
    let stalled; // runs while states are to come
    const wait = () => {
      clearTimeout(stalled);
      stalled = setTimeout(() => watching.end("the server stopped sending states"), stall);
    };
    try {
      // The roster stays as it was until all states have been read.
      const fresh = { agents: new Map(), watermark: null, health: null };
      let into = fresh;
      wait();
      const swap = () => {
        Object.assign(this, fresh);
        this.#read = true;
        into = this;
        clearTimeout(stalled);
        complete();
      };
      if (info.num_pending === 0) swap(); // there is nothing to read
      let expected = 1;
      for await (const m of messages) {
        if (m.info.deliverySequence !== expected) throw new Error(`message ${m.info.deliverySequence} came where ${expected} was due`);
        expected++;
        if (into === fresh) wait();
        this.#apply(into, m, log);
        if (into === fresh && m.info.pending === 0) swap();
      }
      throw watching.reason ?? new Error("the consumer has ended");
    } finally {
      clearTimeout(stalled);
      watching.stop();
      messages.stop();
    }
  }

  // apply takes a message in. One that can't be used is logged; an agent whose state it was is unknown until it has another.
  #apply(into, m, log) {
    const [, kind, , id] = m.subject.split(".");
    if (kind === "state") into.agents.delete(id);
    try {
      const message = m.json();
      if (kind !== "state") {
        if (message.tenantId !== Number(this.#tenant)) throw new Error("it is about another tenant");
        into[kind] = message; // watermark or health
        if (kind === "health") log(`health: ${message.state} ${message.reason ?? ""} ${message.detail ?? ""}`);
        return;
      }
      // Fields and reasons that are not known here are none of our business; another major version is.
      if (message.dataschema !== dataSchema) throw new Error(`its dataschema is ${message.dataschema}`);
      if (message.source !== `/isdp/tenants/${this.#tenant}` || message.subject !== id) throw new Error("it is about another agent");
      if (typeof message.data?.online !== "boolean" || !message.data.agent) throw new Error("it is no event");
      into.agents.set(id, message);
    } catch (err) {
      log(`message ${m.seq} (${m.subject}) can't be used: ${err.message}`);
    }
  }
}

// watch ends the messages when the connection is lost, or the consumer is, and says why.
function watch(nc, messages) {
  const connection = nc.status();
  const watching = {
    reason: null,
    end(why) {
      this.reason ??= new Error(why);
      messages.stop();
    },
    stop: () => connection.stop?.(),
  };
  (async () => {
    for await (const s of connection) {
      if (s.type === "disconnect" || s.type === "close") watching.end("the connection to NATS was lost");
    }
  })();
  (async () => {
    for await (const s of messages.status()) {
      if (["heartbeats_missed", "consumer_deleted", "consumer_not_found", "stream_not_found", "no_responders"].includes(s.type)) {
        watching.end(`the consumer is gone: ${s.type}`);
      }
    }
  })();
  return watching;
}
