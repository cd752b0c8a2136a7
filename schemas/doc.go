// Package schemas is rollcall's wire: the agent as the vendor lists it, the events, watermarks and
// health messages that rollcall writes to the stream, the subjects they are stored under, and their
// encoding. This is version 1 ([Version]); it only ever gains optional fields, and the goldens
// under testdata/v1 keep it so.
//
// Encoding is exact: integers of 64 bits stay integers, fields that the vendor sends but documents
// nowhere are carried byte for byte, times are UTC with milliseconds, and the order of the fields
// never changes, so the same value always has the same bytes. The AppendJSON methods give those
// bytes; the MarshalJSON methods exist so that the types can be used with [encoding/json], which
// compacts the undocumented fields and escapes HTML in them.
//
// Decoding is lenient: fields that a later build may add are ignored.
//
// One message is not in the stream and not rollcall's own: [Stale], with which the NATS server
// tells plain subscribers of [StaleSubject] that a watermark is overdue.
//
// For readers in other languages the same is said as JSON Schema and AsyncAPI: see [Document].
// asyncapi.json is put together from testdata/asyncapi.json, the schemas and the goldens by go test
// -run AsyncAPI -update; testdata/v1/schemas keeps what the schemas of version 1 have said, and a
// test refuses whatever takes anything of it back.
//
// Nothing in this package is safe for concurrent modification; values that nobody modifies may be
// shared freely. It needs the standard library only.
package schemas

// Version is the version of the wire format that this package describes.
const Version = "v1"
