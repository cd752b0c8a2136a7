// Validates messages with Ajv, in its strict mode. Arguments: the files of the schemas; standard input: a line of JSON each
// message, {"schema": the number of its schema, "body": the message as a string}. Prints how many there were, and what is
// wrong with which, a line each.
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import Ajv from "ajv/dist/2020.js";
import addFormats from "ajv-formats";

const ajv = addFormats(new Ajv({ strict: true }));
const validators = [];
for (const path of process.argv.slice(2)) {
  validators.push(ajv.compile(JSON.parse(await readFile(path, "utf8"))));
}
let messages = 0;
for await (const line of createInterface({ input: process.stdin })) {
  const { schema, body } = JSON.parse(line);
  messages++;
  if (!validators[schema](JSON.parse(body))) {
    console.log(`${ajv.errorsText(validators[schema].errors)}: ${body}`);
  }
}
console.log(`${messages} messages`);
