#!/usr/bin/env python3
"""Who is on duty, by rollcall's stream: Python and a socket, nothing to install.

It shows what a client has to do that no library does for it; docs/consumers.md says why.
With nats-py, jnats and the like most of this is a call.

    go run ./cmd/rollcall demo          # in another terminal
    python3 examples/roster-py/roster.py

NATS_URL says where the stream is (nats://127.0.0.1:4222; a user and a password, or a token, may
be in it), TENANT whose it is (886).
"""

import json
import os
import secrets
import socket
import sys
import time
from datetime import datetime, timezone
from urllib.parse import unquote, urlsplit

STREAM = "AGENT_EVENTS"
BATCH = 500


class Again(Exception):
    """The picture is not to be had this way any more: read all states again."""


class Connection:
    """The NATS protocol, as far as it takes: one subscription for answers, one for messages."""

    def __init__(self, url):
        at = urlsplit(url)
        self.socket = socket.create_connection((at.hostname, at.port or 4222), timeout=10)
        self.file = self.socket.makefile("rb")
        inbox = "_INBOX." + secrets.token_hex(11)
        self.answers, self.messages = inbox + ".1", inbox + ".2"
        options = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True,
                   "lang": "python", "version": "1", "protocol": 1, "name": "roster.py"}
        if at.password is not None:
            options |= {"user": unquote(at.username), "pass": unquote(at.password)}
        elif at.username:
            options |= {"auth_token": unquote(at.username)}
        self.file.readline()  # INFO
        self.send(f"CONNECT {json.dumps(options)}", f"SUB {self.answers} 1",
                  f"SUB {self.messages} 2")

    def close(self):
        self.file.close()
        self.socket.close()

    def send(self, *lines):
        self.socket.sendall("".join(line + "\r\n" for line in lines).encode())

    def publish(self, subject, reply, body):
        body = json.dumps(body)
        self.send(f"PUB {subject} {reply} {len(body.encode())}", body)

    def request(self, subject, body):
        self.publish(subject, self.answers, body)
        while True:
            message = self.read()
            if message["sid"] == "1":
                if message["status"]:
                    raise Again(f"nobody answers on {subject}: {message['status']}")
                return json.loads(message["body"])

    def read(self):
        """The next message. The server says something every few seconds, or is gone."""
        while True:
            line = self.file.readline().decode()
            if not line:
                raise ConnectionError("the server has closed the connection")
            op, *args = line.split()
            if op == "PING":
                self.send("PONG")
            elif op == "-ERR":
                if "auth" in line.lower():
                    sys.exit(f"the server refuses the credentials in NATS_URL: {line.strip()}")
                raise ConnectionError(line.strip())
            elif op in ("MSG", "HMSG"):
                total = int(args[-1])
                head = int(args[-2]) if op == "HMSG" else 0
                data = self.file.read(total + 2)[:total]
                # "NATS/1.0 404 No Messages": a status instead of a message.
                status = data[:head].split(b"\r\n")[0].decode().partition(" ")[2]
                reply = args[2] if len(args) == (5 if op == "HMSG" else 4) else ""
                return {"subject": args[0], "sid": args[1], "reply": reply, "status": status,
                        "body": data[head:]}


def follow(connection, tenant, roster):
    """Reads all states, and then every change, until that goes wrong."""
    name = "roster-" + secrets.token_hex(8)
    answer = connection.request(f"$JS.API.CONSUMER.CREATE.{STREAM}.{name}", {
        "stream_name": STREAM,
        "config": {
            "name": name, "deliver_policy": "last_per_subject", "ack_policy": "none",
            "filter_subjects": [f"agent.state.{tenant}.*", f"agent.watermark.{tenant}",
                                f"agent.health.{tenant}"],
            "inactive_threshold": 300 * 10**9, "mem_storage": True, "num_replicas": 1}})
    if "error" in answer:
        raise Again(answer["error"]["description"])
    states, asked, last = {}, 0, time.monotonic()
    complete = answer["num_pending"] == 0
    if complete:
        roster.replace(states)
    while True:
        if asked == 0:
            asked = BATCH
            connection.publish(f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{name}", connection.messages, {
                "batch": BATCH, "expires": 30 * 10**9, "idle_heartbeat": 10**9})
        message = connection.read()
        roster.judge()
        if message["sid"] != "2":
            continue
        if message["status"]:
            if not complete and time.monotonic() - last > 2:
                raise Again("no state for two seconds, and not all are there")
            if message["status"].startswith(("404", "408")):
                asked = 0  # this request is over
            elif not message["status"].startswith("100"):
                raise Again(message["status"])
            continue
        asked, last = asked - 1, time.monotonic()
        kind = message["subject"].split(".")[1]
        body = json.loads(message["body"])
        if kind == "watermark":
            roster.watermark = body
        elif kind == "state" and complete:
            roster.change(body["subject"], body["data"])
        elif kind == "state":
            states[body["subject"]] = body["data"]
        ack = message["reply"].split(".")  # $JS.ACK.…; a longer form has domain and account
        if not complete and ack[8 if len(ack) == 9 else 10] == "0":
            complete = True
            roster.replace(states)


class Roster:
    """Who is on duty, and whether to believe it."""

    def __init__(self):
        self.states, self.watermark, self.trusted = {}, {}, None

    def replace(self, states):
        """Takes all states, and tells what has changed since they were last read."""
        for agent, data in [*self.states.items()]:
            if agent not in states:  # the stream was begun anew
                self.change(agent, data | {"online": False})
        for agent, data in states.items():
            self.change(agent, data)
        self.states = states
        there = [s for s in states.values() if s["reason"] != "removed"]
        say(f"{len(there)} agents, {sum(s['online'] for s in there)} on duty")
        self.judge()

    def change(self, agent, data):
        before = self.states.get(agent, {"online": False})
        self.states[agent] = data
        if data["online"] != before["online"]:
            name = data["agent"].get("agentName", "")
            say(f"{'online' if data['online'] else 'offline'} {agent} {name}")

    def judge(self):
        """Says when the picture becomes stale, and when it is fresh again."""
        limits = [self.watermark.get("staleAfter"), self.watermark.get("nextBy")]
        trusted = all(limits) and all(
            datetime.now(timezone.utc) < datetime.fromisoformat(limit.replace("Z", "+00:00"))
            for limit in limits)
        if trusted != self.trusted:
            self.trusted = trusted
            say("fresh" if trusted else "stale: nobody knows who is on duty")


def say(text):
    print(text, flush=True)


def main():
    roster = Roster()
    while True:
        connection = None
        try:
            connection = Connection(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
            follow(connection, os.environ.get("TENANT", "886"), roster)
        except (Again, OSError) as why:
            print(f"again: {why}", file=sys.stderr, flush=True)
        finally:
            if connection:
                connection.close()
        roster.judge()
        time.sleep(1)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
