// What a consumer in TypeScript writes with the package of schemas/js. The compiler has to take it, and to refuse the lines below
// "@ts-expect-error".
import { jetstream } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { type Agent, type Change, type RollcallEvent, type RollcallUnobservedInterval, Roster } from "rollcall-schemas";

export async function callable(): Promise<string[]> {
  const roster = new Roster("886");
  void roster.run(await connect(), console.error);
  const problem: string = roster.problem();
  if (problem !== "") throw new Error(`${problem}; the last complete sweep is ${roster.watermark?.sweep ?? 0}`);
  return Array.from(roster.online("10"), ([id, { data }]) => `${id} ${data.agent.agentName ?? ""} ${data.agent.capacity ?? 1}`);
}

export function signedOut(event: RollcallEvent): boolean {
  const wasOnline = (c: Change): boolean => c.field === "onlineStatus" && c.from === 1 && c.to === 0;
  return event.type === "agent.offline" && event.data.changes.some(wasOnline);
}

export async function follow(name: string): Promise<void> {
  const consumer = await jetstream(await connect()).consumers.get("AGENT_EVENTS", name);
  for await (const m of await consumer.consume()) {
    const { data }: RollcallEvent = m.json<RollcallEvent>();
    const agent: Agent = data.agent;
    console.log(agent.agentAccount, data.changes.map((c) => c.field), capacities(data.agent, 1));
    m.ack();
  }
}

export const nobodyLooked = (u: RollcallUnobservedInterval): string => `${u.from} to ${u.to}: ${u.health ?? "not running"}`;

function capacities(agent: Agent, ifNone: number): number {
  // @ts-expect-error: a capacity can be absent
  const capacity: number = agent.capacity;
  return capacity ?? ifNone;
}

// @ts-expect-error: there is no such type of event
export const never = (event: RollcallEvent): boolean => event.type === "agent.gone";

// @ts-expect-error: tenants are strings here
new Roster(886);
