// How to sign in to NATS: by flags, or by a context of the nats command line.

import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";
import { credsAuthenticator, nkeyAuthenticator } from "@nats-io/transport-node";

// What parseArgs takes.
export const signInOptions = {
  context: { type: "string" }, // a context's name, or its file; it says all of the following
  nats: { type: "string", default: process.env.NATS_URL || "nats://127.0.0.1:4222" }, // several: separated by commas
  creds: { type: "string" }, // files, from here on
  nkey: { type: "string" },
  tlsca: { type: "string" },
  tlscert: { type: "string" },
  tlskey: { type: "string" },
  "js-domain": { type: "string" }, // the JetStream domain that has the stream
};

// signIn is what connect takes, and the JetStream domain.
export function signIn(flags) {
  const how = flags.context ? fromContext(flags.context) : {
    url: flags.nats, creds: flags.creds, nkey: flags.nkey, ca: flags.tlsca, cert: flags.tlscert, key: flags.tlskey,
    jetstream_domain: flags["js-domain"],
  };
  // The client takes nothing but the address from a URL.
  const urls = (how.url || "nats://127.0.0.1:4222").split(",").map((text) => address(text.trim()));
  const [user, password] = [decodeURIComponent(urls[0].username), decodeURIComponent(urls[0].password)];
  const connection = { servers: urls.map((url) => url.host) };
  if (how.user) Object.assign(connection, { user: how.user, pass: how.password });
  else if (how.token) connection.token = how.token;
  else if (how.creds) connection.authenticator = credsAuthenticator(readFileSync(how.creds));
  else if (how.nkey) connection.authenticator = nkeyAuthenticator(new TextEncoder().encode(seed(how.nkey)));
  else if (password) Object.assign(connection, { user, pass: password });
  else if (user) connection.token = user;
  if (how.ca || how.cert || urls.some((url) => url.protocol === "tls:")) {
    connection.tls = { caFile: how.ca || undefined, certFile: how.cert || undefined, keyFile: how.key || undefined, handshakeFirst: how.tls_first };
  }
  return { connection, domain: how.jetstream_domain || undefined };
}

// address does not show what it can't read: it may hold a password.
function address(text) {
  const url = text.includes("://") ? text : `nats://${text}`;
  if (!URL.canParse(url)) throw new Error("the URL of the NATS servers can't be read; write special characters of a password as %XX");
  return new URL(url);
}

// seed finds the seed in a file that may say more, as nsc's files do.
function seed(file) {
  const found = /^SU[A-Z2-7]+$/m.exec(readFileSync(file, "utf8"));
  if (!found) throw new Error(`${file} does not hold the seed of a user`);
  return found[0];
}

function fromContext(name) {
  const dir = join(process.env.XDG_CONFIG_HOME || join(homedir(), ".config"), "nats", "context");
  const how = JSON.parse(readFileSync(isAbsolute(name) ? name : join(dir, `${name}.json`), "utf8"));
  for (const file of ["creds", "nkey", "ca", "cert", "key"]) how[file] = how[file]?.replace(/^~/, homedir());
  return how;
}
