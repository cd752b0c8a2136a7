package schemas

import (
	_ "embed"
	"slices"
)

var (
	//go:embed event.schema.json
	eventSchema []byte
	//go:embed watermark.schema.json
	watermarkSchema []byte
	//go:embed health.schema.json
	healthSchema []byte
	//go:embed unobserved.schema.json
	unobservedSchema []byte
	//go:embed query.schema.json
	querySchema []byte
	//go:embed asyncapi.json
	asyncAPI []byte
)

var documents = []struct {
	name string
	text []byte
}{
	{"event", eventSchema},
	{"watermark", watermarkSchema},
	{"health", healthSchema},
	{"unobserved", unobservedSchema},
	{"query", querySchema},
	{"asyncapi", asyncAPI},
}

// Documents are the names of the documents that describe the wire to readers in other languages:
// "event", "watermark", "health" and "unobserved", the JSON Schemas (2020-12) of the payloads,
// "query", the one of questions and their answers, and "asyncapi", an AsyncAPI 3 document of all
// subjects.
func Documents() []string {
	names := make([]string, len(documents))
	for i, d := range documents {
		names[i] = d.name
	}
	return names
}

// Document returns the document of that name, JSON that ends in a newline, and whether there is
// one.
func Document(name string) ([]byte, bool) {
	for _, d := range documents {
		if d.name == name {
			return slices.Clone(d.text), true
		}
	}
	return nil, false
}
