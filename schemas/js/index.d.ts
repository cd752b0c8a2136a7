import type { NatsConnection } from "@nats-io/nats-core";
import type { RollcallEvent } from "./event.js";
import type { RollcallHealth } from "./health.js";
import type { RollcallWatermark } from "./watermark.js";

export type { Agent, Change, RollcallEvent } from "./event.js";
export type { RollcallHealth } from "./health.js";
export type { RollcallUnobservedInterval } from "./unobserved.js";
export type { RollcallWatermark } from "./watermark.js";

/** The agents of one tenant, as the stream last said. */
export class Roster {
  /**
   * @param tenant The tenant's id, "886" for one.
   * @param options.domain The JetStream domain that has the stream, where it is not the account's own.
   */
  constructor(tenant: string, options?: { domain?: string });

  /**
   * The last event of every agent, removed ones too, by the agent's id. Ids are strings, since they may exceed 2^53: take an id
   * from here or from an event's subject, not from data.agent.agentId, which JSON.parse has rounded.
   */
  readonly agents: ReadonlyMap<string, RollcallEvent>;

  /** Up to when everything that the vendor showed has been published. Null until all has been read. */
  readonly watermark: RollcallWatermark | null;

  /** How the vendor's listing fares. Null until all has been read, and where rollcall has never said. */
  readonly health: RollcallHealth | null;

  /**
   * Why the roster must not be acted on at a moment; empty where it may be. It compares with rollcall's clock, so keep the
   * machines' clocks in step. It needs no connection: a roster that nobody brings up to date becomes stale.
   *
   * @param now Milliseconds since 1970; by default now.
   */
  problem(now?: number): string;

  /** The agents on duty, of one type ("10": video calls) or of all. */
  online(type?: string): IterableIterator<[id: string, event: RollcallEvent]>;

  /**
   * Keeps the roster up to date until the connection is closed. Whatever else goes wrong is logged, and all is read again; until
   * then the roster stays as it was.
   *
   * @param log What is done with a line for the log; by default nothing.
   */
  run(nc: NatsConnection, log?: (line: string) => void): Promise<void>;
}
