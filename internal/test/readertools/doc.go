// Package readertools holds tests that read what rollcall writes with the tools that others read it
// with: a JSON Schema library, the CloudEvents SDK and, with the build tag ci, the parser of
// AsyncAPI documents, Ajv, TypeScript's compiler, the nats command line and nats.js. These need
// Node 20 or later, npm with its registry, and the Go module proxy; where one is missing they fail.
package readertools
