// Parses the AsyncAPI documents named on the command line with the official parser, and prints what that says of each, a line
// of JSON.
import { readFile } from "node:fs/promises";
import { Parser } from "@asyncapi/parser";

for (const path of process.argv.slice(2)) {
  const { document, diagnostics } = await new Parser().parse(await readFile(path, "utf8"));
  console.log(JSON.stringify({
    diagnostics: diagnostics.map(({ code, message, severity, path }) => ({ code, message, severity, path: path.join(".") })),
    addresses: document?.channels().all().map((c) => c.address()) ?? [],
  }));
}
