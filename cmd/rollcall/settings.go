package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"

	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/poller"
	"github.com/rollcall-events/rollcall/schemas"
)

// settings is the whole environment of rollcall. What each variable takes, its default and what it
// is for stand in groups; the tags here only tell envconfig the names. They are full names, and
// Process is called without a prefix: with one, envconfig would take LOG_LEVEL for
// ROLLCALL_LOG_LEVEL wherever the latter is not set.
type settings struct {
	ISDPURL              variable[string] `envconfig:"ROLLCALL_ISDP_URL"`
	ISDPClientID         variable[secret] `envconfig:"ROLLCALL_ISDP_CLIENT_ID"`
	ISDPClientIDFile     variable[string] `envconfig:"ROLLCALL_ISDP_CLIENT_ID_FILE"`
	ISDPClientSecret     variable[secret] `envconfig:"ROLLCALL_ISDP_CLIENT_SECRET"`
	ISDPClientSecretFile variable[string] `envconfig:"ROLLCALL_ISDP_CLIENT_SECRET_FILE"`
	ISDPUsername         variable[secret] `envconfig:"ROLLCALL_ISDP_USERNAME"`
	ISDPUsernameFile     variable[string] `envconfig:"ROLLCALL_ISDP_USERNAME_FILE"`
	ISDPPassword         variable[secret] `envconfig:"ROLLCALL_ISDP_PASSWORD"`
	ISDPPasswordFile     variable[string] `envconfig:"ROLLCALL_ISDP_PASSWORD_FILE"`
	ISDPTypes            variable[[]int]  `envconfig:"ROLLCALL_ISDP_TYPES"`
	ISDPCAFile           variable[string] `envconfig:"ROLLCALL_ISDP_CA_FILE"`
	TenantID             variable[int64]  `envconfig:"ROLLCALL_TENANT_ID"`

	PollInterval   variable[time.Duration] `envconfig:"ROLLCALL_POLL_INTERVAL"`
	PollTimeout    variable[time.Duration] `envconfig:"ROLLCALL_POLL_TIMEOUT"` // 0: to be derived from the listing's size
	RequestTimeout variable[time.Duration] `envconfig:"ROLLCALL_REQUEST_TIMEOUT"`
	PageSize       variable[int]           `envconfig:"ROLLCALL_PAGE_SIZE"`
	Concurrency    variable[int]           `envconfig:"ROLLCALL_CONCURRENCY"`
	RateLimit      variable[float64]       `envconfig:"ROLLCALL_RATE_LIMIT"`

	RemoveAfter  variable[int]           `envconfig:"ROLLCALL_REMOVE_AFTER"`
	MaxMissing   variable[float64]       `envconfig:"ROLLCALL_MAX_MISSING"`
	MissingHold  variable[time.Duration] `envconfig:"ROLLCALL_MISSING_HOLD"`
	QuietFields  variable[[]string]      `envconfig:"ROLLCALL_QUIET_FIELDS"` // never nil; empty: none is quiet
	BufferEvents variable[int]           `envconfig:"ROLLCALL_BUFFER_EVENTS"`

	NATSURL       variable[secret]        `envconfig:"ROLLCALL_NATS_URL"` // it may carry a password; empty: the embedded server
	NATSURLFile   variable[string]        `envconfig:"ROLLCALL_NATS_URL_FILE"`
	NATSListen    variable[string]        `envconfig:"ROLLCALL_NATS_LISTEN"`
	DataDir       variable[string]        `envconfig:"ROLLCALL_DATA_DIR"`
	NATSCredsFile variable[string]        `envconfig:"ROLLCALL_NATS_CREDS_FILE"`
	NATSNKeyFile  variable[string]        `envconfig:"ROLLCALL_NATS_NKEY_FILE"`
	NATSCAFile    variable[string]        `envconfig:"ROLLCALL_NATS_CA_FILE"`
	NATSCertFile  variable[string]        `envconfig:"ROLLCALL_NATS_CERT_FILE"`
	NATSKeyFile   variable[string]        `envconfig:"ROLLCALL_NATS_KEY_FILE"`
	NATSReplicas  variable[int]           `envconfig:"ROLLCALL_NATS_REPLICAS"`
	NATSManage    variable[bool]          `envconfig:"ROLLCALL_NATS_MANAGE"`
	EventsMaxAge  variable[time.Duration] `envconfig:"ROLLCALL_EVENTS_MAX_AGE"`
	NATSMaxBytes  variable[int64]         `envconfig:"ROLLCALL_NATS_MAX_BYTES"`
	LeaseTTL      variable[time.Duration] `envconfig:"ROLLCALL_LEASE_TTL"`
	Instance      variable[string]        `envconfig:"ROLLCALL_INSTANCE"`

	HTTPListen variable[string] `envconfig:"ROLLCALL_HTTP_LISTEN"` // empty: none
	OpsListen  variable[string] `envconfig:"ROLLCALL_OPS_LISTEN"`  // empty: none

	LogLevel  variable[slog.Level] `envconfig:"ROLLCALL_LOG_LEVEL"`
	LogFormat variable[string]     `envconfig:"ROLLCALL_LOG_FORMAT"`
}

// A variable is one variable of the environment: what it holds and, once loaded, what that means or
// else the default.
type variable[T any] struct {
	value T
	raw   *string // a pointer, so that no verb of fmt prints a secret that stands here
}

// Decode keeps what the variable holds. It never fails: an error of envconfig's prints the value
// and ends the reading.
func (v *variable[T]) Decode(raw string) error {
	v.raw = &raw
	return nil
}

// text is what the variable holds; empty is the same as not set.
func (v *variable[T]) text() string {
	if v.raw == nil {
		return ""
	}
	return *v.raw
}

// isSet reports whether someone chose a value, in this variable itself: for a secret, see also its
// file's.
func (v *variable[T]) isSet() bool { return strings.TrimSpace(v.text()) != "" }

// embedded reports whether the log is kept by rollcall's own NATS server.
func (s *settings) embedded() bool { return s.NATSURL.value.reveal() == "" }

// source says whether a command reads the vendor's listing.
type source int

const (
	withoutVendor source = iota // ROLLCALL_ISDP_… is neither read nor judged, nor are its files opened
	withVendor                  // ROLLCALL_ISDP_… is required
)

// loadSettings reads the environment and the files that it names. The error joins one
// [*setting.Error] for everything that can't be used, with the name of the variable as its Field,
// and never holds a secret. The warnings are worth a line of the log each, also beside an error,
// which a mistyped name may explain.
func loadSettings(src source) (s *settings, warnings []string, err error) {
	s = new(settings)
	if envconfig.Process("", s) != nil {
		// No Decode fails, so this is a field that envconfig can't take. What it says of that may
		// hold a value.
		return nil, nil, errors.New("the settings are declared in a way that envconfig refuses: a bug in rollcall")
	}
	var errs []error
	for _, g := range s.groups() {
		for _, r := range g.rows {
			if src == withoutVendor && r.vendor {
				continue
			}
			for _, e := range r.load() {
				errs = append(errs, e)
			}
		}
	}
	errs = append(errs, s.conflicts()...)
	warnings = append(unknownVariables(os.Environ(), s.names()), s.oddFields()...)
	if err := errors.Join(errs...); err != nil {
		return nil, warnings, err
	}
	return s, warnings, nil
}

// conflicts tells of settings that are usable each by itself but not together.
func (s *settings) conflicts() []error {
	var errs []error
	bad := func(field, value, want string) {
		errs = append(errs, &setting.Error{Field: field, Value: value, Want: want})
	}
	if most := s.PollTimeout.value; most > 0 && s.RequestTimeout.value > most {
		bad("ROLLCALL_REQUEST_TIMEOUT", s.RequestTimeout.value.String(),
			fmt.Sprintf("at most ROLLCALL_POLL_TIMEOUT, which is %s: a request is part of a sweep", most))
	}

	if u, err := url.Parse(s.ISDPURL.value); err == nil {
		if _, err := poller.Proxy(u); err != nil {
			errs = append(errs, err)
		}
	}

	if !s.NATSURL.isSet() && !s.NATSURLFile.isSet() {
		for _, f := range []struct {
			name string
			set  bool
		}{
			{"ROLLCALL_NATS_CREDS_FILE", s.NATSCredsFile.isSet()},
			{"ROLLCALL_NATS_NKEY_FILE", s.NATSNKeyFile.isSet()},
			{"ROLLCALL_NATS_CA_FILE", s.NATSCAFile.isSet()},
			{"ROLLCALL_NATS_CERT_FILE", s.NATSCertFile.isSet()},
			{"ROLLCALL_NATS_KEY_FILE", s.NATSKeyFile.isSet()},
		} {
			if f.set {
				bad(f.name, "", "ROLLCALL_NATS_URL as well, or not to be set: the embedded server is reached without it")
			}
		}
		if n := s.NATSReplicas.value; n > 1 {
			bad("ROLLCALL_NATS_REPLICAS", fmt.Sprint(n), "1, or ROLLCALL_NATS_URL as well: the embedded server is a single one")
		}
	}
	if s.NATSCertFile.isSet() != s.NATSKeyFile.isSet() {
		bad("ROLLCALL_NATS_CERT_FILE and ROLLCALL_NATS_KEY_FILE", "", "both or neither: a certificate is of no use without its key")
	} else if cert, key := s.NATSCertFile.value, s.NATSKeyFile.value; cert != "" && key != "" && !matchingPair(cert, key) {
		bad("ROLLCALL_NATS_CERT_FILE and ROLLCALL_NATS_KEY_FILE", "", "a certificate and the key that belongs to it, both in PEM")
	}
	if s.NATSCredsFile.isSet() && s.NATSNKeyFile.isSet() {
		bad("ROLLCALL_NATS_CREDS_FILE and ROLLCALL_NATS_NKEY_FILE", "", "one of the two: each is a whole way to sign in")
	}

	listens := []struct{ name, addr string }{
		{"ROLLCALL_HTTP_LISTEN", s.HTTPListen.value}, {"ROLLCALL_OPS_LISTEN", s.OpsListen.value},
	}
	if s.embedded() {
		listens = append(listens, struct{ name, addr string }{"ROLLCALL_NATS_LISTEN", s.NATSListen.value})
	}
	for i, a := range listens {
		for _, b := range listens[i+1:] {
			if a.addr == b.addr && a.addr != "" && !anyPort(a.addr) {
				bad(a.name, a.addr, "another address than "+b.name+" has")
			}
		}
	}
	return errs
}

func anyPort(addr string) bool {
	_, port, _ := net.SplitHostPort(addr)
	return strings.Trim(port, "0") == ""
}

// inVariables puts the names of the variables into what a package's Config.Validate reported, and
// what they hold in place of what that was read as. An error of a field that no variable sets stays
// as it is.
func (s *settings) inVariables(err error) error {
	var e *setting.Error
	if !errors.As(err, &e) {
		return err
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var errs []error
		for _, e := range joined.Unwrap() {
			errs = append(errs, s.inVariables(e))
		}
		return errors.Join(errs...)
	}
	for _, g := range s.groups() {
		for _, r := range g.rows {
			if r.field == e.Field {
				return &setting.Error{Field: r.name, Value: r.shown(), Want: e.Want}
			}
		}
	}
	return err
}

// byField are the names of the variables by the fields that they set.
func byField() map[string]string {
	names := map[string]string{}
	for _, g := range new(settings).groups() {
		for _, r := range g.rows {
			names[r.field] = r.name
		}
	}
	return names
}

// names are those of all variables that rollcall reads.
func (s *settings) names() []string {
	var names []string
	for _, g := range s.groups() {
		for _, r := range g.rows {
			names = append(names, r.name)
			if r.file != "" {
				names = append(names, r.file)
			}
		}
	}
	return names
}

// unknownVariables tells of each variable that looks like one of rollcall's and is none.
func unknownVariables(environ, known []string) []string {
	var warnings []string
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, envPrefix) || slices.Contains(known, name) || serviceLink(name, value) {
			continue
		}
		w := name + " is none of rollcall's settings and has no effect"
		if n := nearest(name, known); n != "" {
			w += "; did you mean " + n + "?"
		}
		warnings = append(warnings, w)
	}
	slices.Sort(warnings)
	return warnings
}

const envPrefix = "ROLLCALL_"

// serviceLink reports whether the variable is one of those by which Kubernetes tells a pod of a
// Service, here one whose name begins with rollcall.
func serviceLink(name, value string) bool {
	if strings.HasSuffix(name, "_SERVICE_HOST") || strings.Contains(name, "_SERVICE_PORT") {
		return true
	}
	for _, protocol := range []string{"TCP", "UDP", "SCTP"} {
		if strings.Contains(name, "_"+protocol) && strings.Contains(name, "_PORT_") ||
			strings.HasSuffix(name, "_PORT") && strings.HasPrefix(value, strings.ToLower(protocol)+"://") {
			return true
		}
	}
	return false
}

// oddFields tells of quiet fields that look like a mistyped name of one that is usually quiet.
// Names that the vendor's documentation does not list are otherwise fine: such fields come.
func (s *settings) oddFields() []string {
	var warnings []string
	for _, f := range s.QuietFields.value {
		if f == "*" || schemas.Listed(f) {
			continue
		}
		if n := nearest(f, schemas.DefaultQuiet); n != "" {
			warnings = append(warnings, fmt.Sprintf("ROLLCALL_QUIET_FIELDS names %q, a field that the vendor does not document; did you mean %s?",
				shortened(f), n))
		}
	}
	return warnings
}

// defaultInstance names this replica so that a look at the lease leads to the process.
func defaultInstance() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown-host"
	}
	return fmt.Sprintf("%s-%d", host, os.Getpid())
}
