// Package check tries what the daemon would use, one thing after the other, and says what is wrong
// and how to mend it.
//
// It changes nothing: it makes one token call and one page call of each listing, and of NATS it
// reads. What it publishes, to learn what it may, are messages that a server refuses for what they
// say if it does not refuse them for who says it: none is stored, no stream, bucket or consumer is
// made, and no lease is taken.
package check

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/natsd"
	"github.com/rollcall-events/rollcall/internal/natsdial"
	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/poller"
	"github.com/rollcall-events/rollcall/poller/isdp"
	"github.com/rollcall-events/rollcall/publisher"
)

// Limit is how long a Run takes at most, whatever hangs.
const Limit = 28 * time.Second

// A Level says how one thing fares.
type Level string

// The levels.
const (
	OK      Level = "ok"
	Warning Level = "warning" // rollcall starts, and something is not as it should be
	Failure Level = "failure" // rollcall does not do its work like this
	Skipped Level = "skipped" // could not be tried, for what came before
)

// A Result is what is known of one thing.
type Result struct {
	Name    string `json:"name"` // of what was tried; bounded
	Level   Level  `json:"level"`
	Text    string `json:"text"`              // how it is, a sentence without its full stop
	Do      string `json:"do,omitempty"`      // what to do about it, or what to know
	Setting bool   `json:"setting,omitempty"` // it has to change: the daemon would exit with code 2
}

// A Listen is an address that the daemon listens on.
type Listen struct {
	Field string // the setting's name, as in [setting.Text]
	Addr  string // host:port
}

// Config is what to try.
type Config struct {
	Vendor    isdp.Config      // its Logger is not used
	Poller    poller.Config    // likewise
	Publisher publisher.Config // the stream; Tenant 0: the token's
	Interval  time.Duration    // from sweep to sweep

	NATS     *natsdial.Servers // nil: the embedded server, which may be running or not
	Embedded natsd.Config

	Listens []Listen // of the daemon's pages

	Proxy *url.URL // what the environment says for BaseURL; nil: none

	Secrets []string // kept out of what others have written

	Now func() time.Time // what the stream's times are compared with; nil: time.Now
}

// A probe tries one thing.
type probe struct {
	name  string
	needs string // the probe without which it makes no sense; empty: none
	limit time.Duration
	try   func(*state, context.Context)
}

var vendorProbes = []probe{
	{"token", "", 6 * time.Second, (*state).token}, // and on the way there: dns, tcp, tls
	{"listing", "token", 8 * time.Second, (*state).listing},
	{"rate", "listing", time.Second, (*state).rate},
}

var ownProbes = []probe{{"listen", "", 3 * time.Second, (*state).listen}}

var natsProbes = []probe{
	{"nats", "", 7 * time.Second, (*state).connect}, // natsdial gives a silent server up before
	{"permissions", "nats", 3 * time.Second, (*state).permissions},
	{"jetstream", "nats", 3 * time.Second, (*state).jetstream},
	{"stream", "jetstream", 3 * time.Second, (*state).stream},
	{"bucket", "jetstream", 3 * time.Second, (*state).bucket},
	{"lease", "bucket", 2 * time.Second, (*state).lease},
	{"watermark", "stream", 2 * time.Second, (*state).watermark},
	{"health", "stream", 2 * time.Second, (*state).health},
	{"alarm", "jetstream", 3 * time.Second, (*state).alarm},
}

var embeddedProbes = []probe{
	{"data", "", 3 * time.Second, (*state).data},
	{"nats", "data", 5 * time.Second, (*state).embedded},
	{"stream", "nats", 3 * time.Second, (*state).stream},
	{"watermark", "stream", 2 * time.Second, (*state).watermark},
	{"health", "stream", 2 * time.Second, (*state).health},
}

// state is a Run under way.
type state struct {
	Config
	report  func(Result)
	name    string          // of the probe under way
	stopped map[string]bool // probes after which those that need them make no sense
	secrets []string        // the longest first

	client     *isdp.Client
	tenant     int64 // 0: not known
	listed     []listed
	nc         *nats.Conn
	js         jetstream.JetStream
	storeLimit int64    // how many bytes the account may store; 0: any number, or not known
	denied     []string // subjects
	leader     string   // empty: nobody, or not known
	unled      bool     // the lease says that nobody leads
	// committed is when the last commit was, where that is longer ago than it should be.
	committed time.Time
	running   bool // a rollcall has the embedded server's directory
}

// Run tries everything and reports each result as it is known, in order, on the calling goroutine.
func Run(ctx context.Context, c Config, report func(Result)) {
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	s := &state{
		Config: c, report: report, stopped: make(map[string]bool), tenant: c.Publisher.Tenant,
	}
	if s.Now == nil {
		s.Now = time.Now
	}
	s.secrets = slices.DeleteFunc(slices.Clone(c.Secrets), func(s string) bool { return s == "" })
	slices.SortFunc(s.secrets, func(a, b string) int { return len(b) - len(a) })
	defer func() {
		if s.nc != nil {
			s.nc.Close()
		}
	}()
	stream := natsProbes
	if c.NATS == nil {
		stream = embeddedProbes
	}
	for _, p := range slices.Concat(vendorProbes, stream, ownProbes) {
		s.name = p.name
		switch {
		case ctx.Err() != nil:
			s.skip("there was no time left")
		case s.stopped[p.needs]:
			s.skip("needs " + p.needs)
		default:
			limited, cancel := context.WithTimeout(ctx, p.limit)
			p.try(s, limited)
			cancel()
		}
	}
}

// say reports a result of the probe under way.
func (s *state) say(level Level, text, do string) {
	s.result(Result{Level: level, Text: text, Do: do})
}

func (s *state) result(r Result) {
	r.Name = s.name
	r.Text, r.Do = s.clean(r.Text), s.clean(setting.Text(r.Do))
	if r.Level == Failure || r.Level == Skipped {
		s.stopped[s.name] = true
	}
	s.report(r)
}

func (s *state) ok(text string)       { s.say(OK, text, "") }
func (s *state) warn(text, do string) { s.say(Warning, text, do) }
func (s *state) fail(text, do string) { s.say(Failure, text, do) }
func (s *state) skip(why string)      { s.say(Skipped, why, "") }

// stop keeps what needs the probe under way from being tried, without a result of its own.
func (s *state) stop() { s.stopped[s.name] = true }

// clean makes what may hold foreign words fit to be shown: no secrets, one line, nothing that a
// terminal obeys, not long.
func (s *state) clean(text string) string {
	const most = 1000
	for _, secret := range s.secrets {
		text = strings.ReplaceAll(text, secret, "[secret]")
	}
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	if r := []rune(text); len(r) > most {
		text = string(r[:most]) + "…"
	}
	return strings.TrimSpace(text)
}
