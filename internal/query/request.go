package query

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/rollcall-events/rollcall/schemas"
)

const (
	// MaxLimit is the most agents that a question can ask for at a time.
	MaxLimit = 10_000
	// maxRequest is how long a question in NATS may be, in bytes. An areaName is far shorter.
	maxRequest = 16 << 10
)

// A request is a question, whatever it came by.
type request struct {
	typ    *string // of a roster: only these
	online *bool
	area   *string
	after  *int64 // only agents with a larger id
	limit  int    // at most so many; 0: as many as fit

	agentID *int64
}

// A field is one that a question may have.
type field struct {
	kind jsontext.Kind // of JSON
	want string        // what is right, as the end of a sentence; a string, where kind says so
	set  func(r *request, text string) bool
}

// id is a field that holds an agentId. In JSON it is a string: not every reader's numbers hold it.
func id(want string, into func(r *request) **int64) field {
	return field{'"', want, func(r *request, text string) bool {
		id, err := strconv.ParseInt(text, 10, 64)
		*into(r) = &id
		return err == nil && strconv.FormatInt(id, 10) == text // as rollcall writes it
	}}
}

// The fields of each question, by their names.
var (
	ofRoster = map[string]field{
		"type": {'"', `a type as in counts, such as "10", or "_" for none`,
			func(r *request, text string) bool {
				r.typ = &text
				return (&schemas.Agent{Type: &text}).TypeToken() == text
			}},
		"online": {'t', "true or false", func(r *request, text string) bool {
			online := text == "true"
			r.online = &online
			return online || text == "false"
		}},
		"area": {'"', `an areaName, or "" for none`,
			func(r *request, text string) bool {
				r.area = &text
				return true
			}},
		"after": id(`the next of the page before, such as "17813"`,
			func(r *request) **int64 { return &r.after }),
		"limit": {'0', fmt.Sprintf("a whole number from 1 to %d", MaxLimit),
			func(r *request, text string) bool {
				n, err := strconv.ParseFloat(text, 64) // 50, and in JSON 5e1 too
				if err != nil || !(1 <= n && n <= MaxLimit) || n != float64(int(n)) {
					return false
				}
				r.limit = int(n)
				return true
			}},
	}
	ofAgent = map[string]field{
		"agentId": id(`an agentId, such as "17813"`,
			func(r *request) **int64 { return &r.agentID }),
	}
	ofCounts = map[string]field{}
)

// fromJSON reads a question that came over NATS. Its error says what would be right.
func fromJSON(data []byte, fields map[string]field) (*request, error) {
	r := new(request)
	if len(data) > maxRequest {
		return nil, fmt.Errorf("the question has %d bytes: want at most %d", len(data), maxRequest)
	}
	if len(strings.TrimSpace(string(data))) == 0 {
		return r, nil
	}
	var object map[string]jsontext.Value
	err := json.Unmarshal(data, &object)
	if err == nil && object == nil {
		err = errors.New("it is null")
	}
	if err != nil {
		return nil, fmt.Errorf("the question is not a JSON object: want %s", form(fields, true))
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		value := object[name]
		f, ok := fields[name]
		if !ok {
			return nil, unknown(name, fields, true)
		}
		kind := value.Kind()
		if kind == 'f' {
			kind = 't'
		}
		text := string(value)
		if kind == '"' {
			if json.Unmarshal(value, &text) != nil {
				kind = 0
			}
		}
		if kind != f.kind || !f.set(r, text) {
			want := f.want
			if f.kind == '"' {
				want = "a string, " + want
			}
			return nil, fmt.Errorf("%s is %s: want %s", name, shown(string(value)), want)
		}
	}
	return r, nil
}

// fromQuery reads a question that came as the query of a URL.
func fromQuery(raw string, fields map[string]field) (*request, error) {
	r := new(request)
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, fmt.Errorf("the query of the URL can't be read (%s): want %s",
			printable(err.Error()), form(fields, false))
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		f, ok := fields[name]
		if !ok {
			return nil, unknown(name, fields, false)
		}
		want := strings.ReplaceAll(f.want, `"`, "")
		if len(values[name]) > 1 {
			return nil, fmt.Errorf("%s is given %d times: want it once, %s",
				name, len(values[name]), want)
		}
		// In JSON a number can be written in more ways.
		text := values[name][0]
		if f.kind == '0' && strings.Trim(text, "0123456789") != "" || !f.set(r, text) {
			return nil, fmt.Errorf("%s is %s: want %s", name, shown(text), want)
		}
	}
	return r, nil
}

func unknown(name string, fields map[string]field, inJSON bool) error {
	return fmt.Errorf("there is no %s to ask by: want %s", shown(name), form(fields, inJSON))
}

// form says how a question with these fields looks.
func form(fields map[string]field, inJSON bool) string {
	names := slices.Sorted(maps.Keys(fields))
	switch {
	case len(names) == 0 && inJSON:
		return "an empty question, or {}"
	case len(names) == 0:
		return "no query"
	case inJSON && fields["agentId"].set != nil:
		return `{"agentId": "17813"}`
	case inJSON:
		return `an empty question, or a JSON object such as ` +
			`{"type": "10", "online": true, "limit": 50}, with any of ` + strings.Join(names, ", ")
	}
	return "any of " + strings.Join(names, ", ") + ", such as ?type=10&online=true"
}

// shown is what somebody sent, short enough for an error, in ASCII: it may go into a header.
func shown(text string) string {
	const most = 60
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	if text == "" {
		return `""`
	}
	return printable(text)
}

func printable(text string) string {
	quoted := strconv.QuoteToASCII(text)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}
