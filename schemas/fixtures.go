package schemas

import (
	"embed"
	"encoding/json"
	"path"
	"slices"
	"strconv"
	"strings"
)

//go:embed testdata/v1/*.json
var messages embed.FS

// A Fixture is a message as version 1 writes it, for tests of whoever reads such messages. What is
// there once stays as it is, byte for byte; new ones may come.
type Fixture struct {
	Name        string // what it shows: "event-status-offline"
	Subject     string // where it is stored; an event also as its agent's state
	ContentType string // its Content-Type header
	Body        json.RawMessage
}

// unpublished are goldens that show what the encoding can do, and not what rollcall publishes: they
// have U+0000 or half a surrogate pair, which not every JSON parser takes, and which rollcall marks
// before it publishes a row.
var unpublished = []string{"event-strings", "event-undocumented"}

// Fixtures are one message or several of every kind, with all that may be in it, by their names:
// large ids, removed agents, truncated changes, a watermark before any complete sweep.
func Fixtures() []Fixture {
	const dir = "testdata/v1"
	files, err := messages.ReadDir(dir)
	if err != nil {
		panic(err) // they are in the program
	}
	var all []Fixture
	for _, file := range files {
		name := strings.TrimSuffix(file.Name(), ".json")
		if slices.Contains(unpublished, name) {
			continue
		}
		body, err := messages.ReadFile(path.Join(dir, file.Name()))
		if err != nil {
			panic(err)
		}
		f := Fixture{Name: name, ContentType: ContentTypeJSON, Body: body}
		var about struct {
			TenantID int64 `json:"tenantId"`
		}
		switch kind, _, _ := strings.Cut(f.Name, "-"); kind {
		case "event":
			var e Event
			err = e.UnmarshalJSON(body)
			a := &e.Data.Agent
			f.Subject = EventSubject(e.Type, a.TenantID, a.TypeToken(), a.AgentID)
			f.ContentType = ContentTypeEvent
		default:
			err = json.Unmarshal(body, &about)
			f.Subject = "agent." + kind + "." + strconv.FormatInt(about.TenantID, 10)
		}
		if err != nil {
			panic(err)
		}
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b Fixture) int { return strings.Compare(a.Name, b.Name) })
	return all
}
