package isdpsim

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/rollcall-events/rollcall/internal/tenantsim"
)

// A Hook looks at a request and says what is to go wrong with its answer; nil: nothing. It may be
// called for several requests at a time, and it may use the Tenant.
type Hook func(Request) Fault

// A Fault changes the plan for one answer. Faults compose: All joins several, and each of the
// constructors below changes one thing, so that most go with one another. Of two that send
// differently, or answer instead, the later one wins.
type Fault func(*Plan)

// Plan is how one request will be answered: the extension point for faults of one's own. The zero
// value, with Request and Page as they were asked for, is an answer without fault. Its parts take
// effect in the order in which they stand here.
type Plan struct {
	Request   Request
	Meanwhile []func(*Tenant) // done first: what happens to the tenant before this answer
	Delay     time.Duration   // waited before the look-up
	Reply     *Reply          // answered instead of what the endpoint would
	Page      int             // the page that is looked up; pos stays as asked for
	// change the page's rows; the slice is theirs, the bytes of a row are not
	Rows  []func([]Row) []Row
	Total []func(int) int // change total_count
	Pos   []func(int) int // change pos
	// waited after the look-up: the answer is out of date when it comes
	Late   time.Duration
	Status int         // instead of the answer's own; 0: no change
	Header http.Header // added to the answer, in place of its own
	Body   []func([]byte) []byte
	Send   func(*Delivery) // instead of sending the whole body
	Broken bool            // to be set where no client could read the page; see PageAnswer
}

func (p *Plan) status(r Reply) int {
	if p.Status != 0 {
		return p.Status
	}
	return r.Status
}

// All joins faults into one.
func All(faults ...Fault) Fault {
	return func(p *Plan) {
		for _, f := range faults {
			if f != nil {
				f(p)
			}
		}
	}
}

// Hooks joins hooks into one.
func Hooks(hooks ...Hook) Hook {
	return func(r Request) Fault {
		var faults []Fault
		for _, h := range hooks {
			if f := h(r); f != nil {
				faults = append(faults, f)
			}
		}
		if faults == nil {
			return nil
		}
		return All(faults...)
	}
}

// OnToken is a fault of every token answer.
func OnToken(f Fault) Hook {
	return func(r Request) Fault { return when(r.Endpoint == TokenEndpoint, f) }
}

// OnAgents is a fault of every answer of the agents endpoint.
func OnAgents(f Fault) Hook {
	return func(r Request) Fault { return when(r.Endpoint == AgentsEndpoint, f) }
}

// OnPage is a fault of every answer about one page.
func OnPage(page int, f Fault) Hook {
	return func(r Request) Fault { return when(r.Endpoint == AgentsEndpoint && r.Page == page, f) }
}

func when(ok bool, f Fault) Fault {
	if ok {
		return f
	}
	return nil
}

// Times lets a hook's first n faults through and none after them.
func Times(n int, h Hook) Hook {
	var used atomic.Int64
	return func(r Request) Fault {
		if f := h(r); f != nil && used.Add(1) <= int64(n) {
			return f
		}
		return nil
	}
}

// After leaves out a hook's first n faults and lets all others through.
func After(n int, h Hook) Hook {
	var seen atomic.Int64
	return func(r Request) Fault {
		if f := h(r); f != nil && seen.Add(1) > int64(n) {
			return f
		}
		return nil
	}
}

// Sometimes lets a share p (0 to 1) of a hook's faults through, which ones depends on the seed and
// the request's number.
func Sometimes(seed uint64, p float64, h Hook) Hook {
	return func(r Request) Fault {
		if rand.New(rand.NewPCG(seed, uint64(r.Number))).Float64() < p {
			return h(r)
		}
		return nil
	}
}

// Meanwhile does something to the tenant just before the request is answered: agents that sign in
// or leave while a listing is being read, for one.
func Meanwhile(do func(*Tenant)) Fault {
	return func(p *Plan) { p.Meanwhile = append(p.Meanwhile, do) }
}

// RevokeTokens revokes every token just before the request is answered.
func RevokeTokens() Fault { return Meanwhile(func(t *Tenant) { t.RevokeTokens() }) }

// Delay answers after d with what is true then.
func Delay(d time.Duration) Fault { return func(p *Plan) { p.Delay += d } }

// Late answers after d with what was true before.
func Late(d time.Duration) Fault { return func(p *Plan) { p.Late += d } }

// Answer answers with something else altogether.
func Answer(status int, contentType, body string) Fault {
	return replying(Reply{Status: status, ContentType: contentType, Body: []byte(body)})
}

func replying(reply Reply) Fault { return func(p *Plan) { p.Reply, p.Broken = &reply, true } }

// Status answers with an HTTP status and a line of text.
func Status(code int) Fault { return Answer(code, "text/plain", http.StatusText(code)+"\n") }

// RetryAfter is Status with a Retry-After header, in seconds, rounded up.
func RetryAfter(code int, d time.Duration) Fault {
	return All(Status(code), Header("Retry-After", strconv.Itoa(int(math.Ceil(d.Seconds())))))
}

// RetryAt is Status with a Retry-After header that names a time, to the second.
func RetryAt(code int, at time.Time) Fault {
	return All(Status(code), Header("Retry-After", at.UTC().Format(http.TimeFormat)))
}

// WithStatus gives the answer's own body another HTTP status.
func WithStatus(code int) Fault {
	return func(p *Plan) {
		p.Status = code
		p.Broken = p.Broken || code < 200 || code > 299
	}
}

// Header sets a header of the answer.
func Header(name, value string) Fault {
	return func(p *Plan) {
		if p.Header == nil {
			p.Header = make(http.Header)
		}
		p.Header.Set(name, value)
	}
}

// HTML answers 200 with a gateway's page.
func HTML() Fault {
	return Answer(http.StatusOK, "text/html;charset=UTF-8",
		"<!DOCTYPE "+
			"html>\n<html><head><title>系统繁忙</title></head>"+
			"<body><h1>系统繁忙,请稍后再试</h1></body></html>\n")
}

// InvalidToken answers as to an expired token, with any HTTP status, whatever the token.
func InvalidToken(status int) Fault {
	return replying(tenantsim.InvalidToken(status))
}

// InvalidTokenJSON is InvalidToken as the same server puts it in JSON.
func InvalidTokenJSON(status int) Fault {
	return replying(tenantsim.OAuthError(status, "invalid_token", "check_token error"))
}

// EverySecond lets every second of a hook's faults through, beginning with the second.
func EverySecond(h Hook) Hook {
	var seen atomic.Int64
	return func(r Request) Fault {
		if f := h(r); f != nil && seen.Add(1)%2 == 0 {
			return f
		}
		return nil
	}
}

// CredentialsRefused answers a token request as if the password were wrong.
func CredentialsRefused() Fault {
	return replying(tenantsim.OAuthError(http.StatusBadRequest, "invalid_grant", "Bad credentials"))
}

// StateCode answers 200 with a failure of the vendor's own.
func StateCode(code, message string) Fault {
	return replying(tenantsim.StateReply(code, message))
}

// Empty answers 200 without a body.
func Empty() Fault { return Answer(http.StatusOK, "application/json;charset=UTF-8", "") }

// EmptyListing answers as a tenant without agents would.
func EmptyListing() Fault { return All(Rows(func([]Row) []Row { return nil }), TotalCount(0)) }

// SamePage shows the rows of one page whatever page was asked for; pos says the one asked for.
func SamePage(page int) Fault { return func(p *Plan) { p.Page = page } }

// TotalCount lies about total_count.
func TotalCount(n int) Fault {
	return func(p *Plan) { p.Total = append(p.Total, func(int) int { return n }) }
}

// TotalCountOff lies about total_count by a difference.
func TotalCountOff(by int) Fault {
	return func(p *Plan) { p.Total = append(p.Total, func(n int) int { return n + by }) }
}

// Pos lies about pos.
func Pos(n int) Fault { return func(p *Plan) { p.Pos = append(p.Pos, func(int) int { return n }) } }

// Rows changes the page's rows in any way. change gets a slice that is its own; the bytes of a row
// are shared and must be replaced, not altered.
func Rows(change func([]Row) []Row) Fault {
	return func(p *Plan) { p.Rows = append(p.Rows, change) }
}

// DropRows leaves out rows by their index on the page; those that the page does not have are
// ignored.
func DropRows(indices ...int) Fault {
	return Rows(func(rows []Row) []Row {
		kept := rows[:0:0]
		for i, r := range rows {
			if !slices.Contains(indices, i) {
				kept = append(kept, r)
			}
		}
		return kept
	})
}

// DuplicateRow shows a row twice on the page, the second time, behind all others, with some fields
// changed (nil: none).
func DuplicateRow(index int, fields Fields) Fault {
	return Rows(func(rows []Row) []Row {
		if index >= len(rows) {
			return rows
		}
		return append(rows, patched(rows[index], fields))
	})
}

// ChangeRow shows a row with some fields changed that the tenant never changed.
func ChangeRow(index int, fields Fields) Fault {
	return Rows(func(rows []Row) []Row {
		if index < len(rows) {
			rows[index] = patched(rows[index], fields)
		}
		return rows
	})
}

// InsertRow shows any bytes as one row more, behind all others on the page, with id 0 in the record
// of pages.
func InsertRow(row string) Fault {
	return Rows(func(rows []Row) []Row { return append(rows, Row{JSON: json.RawMessage(row)}) })
}

// patched is the row with the fields; a row that is no object stays as it is.
func patched(r Row, fields Fields) Row {
	if row, err := Patch(r.JSON, fields); err == nil {
		r.JSON = row
	}
	return r
}

// Body changes the answer's bytes in any way.
func Body(change func([]byte) []byte) Fault {
	return func(p *Plan) { p.Body, p.Broken = append(p.Body, change), true }
}

// Respelled writes the answer's bytes in another way that means the same, as gateways do: what it
// shows counts as shown.
func Respelled(change func([]byte) []byte) Fault {
	return func(p *Plan) { p.Body = append(p.Body, change) }
}

// Truncated ends the body after n bytes, as if that had been all of it: no error in HTTP's terms.
func Truncated(n int) Fault {
	return Body(func(b []byte) []byte { return b[:min(n, len(b))] })
}

// Corrupt overwrites the body's first byte with a NUL, so that no reader can tell its rows apart;
// the length stays.
func Corrupt() Fault {
	return Body(func(b []byte) []byte {
		b = bytes.Clone(b)
		if len(b) > 0 {
			b[0] = 0
		}
		return b
	})
}
