package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"

	"github.com/rollcall-events/rollcall/internal/setting"
)

// settings is what the environment says. The table in variables has each variable's name, default
// and words.
type settings struct {
	source source
	env    environment

	ISDPURL                                                    string
	ISDPClientID, ISDPClientSecret, ISDPUsername, ISDPPassword secret
	ISDPTypes                                                  []int  // empty: one listing of all
	ISDPCAFile                                                 string // empty: the system's CAs
	TenantID                                                   int64  // 0: the token's

	PollInterval   time.Duration
	PollTimeout    time.Duration // 0: derived from the listing's size
	RequestTimeout time.Duration
	PageSize       int
	Concurrency    int
	RateLimit      float64 // requests a second
	Glances        bool
	Query          bool

	RemoveAfter  int
	MaxMissing   float64
	MissingHold  time.Duration
	QuietFields  []string // never nil; empty: none is quiet
	BufferEvents int

	NATSURL secret // empty: the embedded server

	NATSListen, DataDir                                                string
	NATSCredsFile, NATSNKeyFile, NATSCAFile, NATSCertFile, NATSKeyFile string
	NATSInboxPrefix                                                    string // empty: _INBOX
	NATSContext                                                        string // empty: none is used
	NATSReplicas                                                       int
	NATSManage                                                         bool
	EventsMaxAge                                                       time.Duration
	NATSMaxBytes                                                       int64
	LeaseTTL                                                           time.Duration
	Instance                                                           string

	HTTPListen, OpsListen string // empty: none

	LogLevel  slog.Level
	LogFormat string
}

// embedded reports whether rollcall's own NATS server keeps the stream.
func (s *settings) embedded() bool { return s.NATSURL.reveal() == "" }

// An environment is what the variables that are set hold, by name. An empty one is not set.
type environment map[string]secret

// readEnvironment has envconfig read the variables. The struct that it fills is made here, so that
// their names stand in the table alone. Its fields are strings, with which envconfig has nothing to
// refuse: it would tell the first thing only, and show the value.
func readEnvironment() environment {
	known := names()
	var fields []reflect.StructField
	for _, name := range known {
		fields = append(fields, reflect.StructField{Name: name, Type: reflect.TypeFor[string](),
			Tag: reflect.StructTag(`envconfig:"` + name + `"`)})
	}
	values := reflect.New(reflect.StructOf(fields))
	envconfig.MustProcess("", values.Interface())
	env := make(environment)
	for i, name := range known {
		if value := values.Elem().Field(i).String(); strings.TrimSpace(value) != "" {
			env[name] = newSecret(value)
		}
	}
	return env
}

func (e environment) isSet(name string) bool { return e[name].reveal() != "" }

// source says whether a command reads the vendor's listing.
type source int

const (
	// withoutVendor: ROLLCALL_ISDP_… is neither read nor judged, nor are its files opened.
	withoutVendor source = iota
	withVendor           // ROLLCALL_ISDP_… is required
)

// loadSettings reads the environment and the files that it names, and has each package judge what
// it is given. The error joins one [*setting.Error] for everything that can't be used, with the
// name of the variable as its Field, and never holds a secret. The warnings are worth a line of the
// log each, also beside an error, which a mistyped name may explain.
func loadSettings(src source) (s *settings, warnings []string, err error) {
	return loadSettingsIn("", src)
}

// loadSettingsIn is loadSettings with a context of the nats command line, unless it is empty.
func loadSettingsIn(context string, src source) (s *settings, warnings []string, err error) {
	s = &settings{source: src, env: readEnvironment()}
	if context != "" {
		if err := s.useContext(context); err != nil {
			return nil, nil, err
		}
	}
	variables := s.variables()
	if src == withoutVendor {
		variables = slices.DeleteFunc(variables, variable.ofVendor)
	}
	wrong := make(map[string]error) // by the variable's name
	for _, v := range variables {
		if err := v.load(s.env); err != nil {
			wrong[v.name] = err
		}
	}
	var others []error
	for _, err := range s.validate() {
		e, _ := errors.AsType[*setting.Error](err)
		i := slices.IndexFunc(variables, func(v variable) bool {
			return e != nil && v.field == e.Field
		})
		switch {
		case i < 0:
			others = append(others, err)
		case wrong[variables[i].name] == nil:
			wrong[variables[i].name] = variables[i].unusable(variables[i].text(s.env), nil)
		}
	}
	var errs []error
	for _, v := range variables {
		errs = append(errs, wrong[v.name])
	}
	warnings = append(unknownVariables(os.Environ(), names()), s.oddFields()...)
	if err := errors.Join(slices.Concat(errs, others, s.conflicts(wrong))...); err != nil {
		return nil, warnings, err
	}
	return s, warnings, nil
}

// validate has the packages judge what they are given.
func (s *settings) validate() (errs []error) {
	judged := []error{
		s.engine(0, nil).Validate(), s.publisher(0, nil).Validate(), s.natsd(nil).Validate(),
	}
	if s.source == withVendor {
		judged = append(judged, s.vendor(nil).Validate(), s.poller(nil).Validate())
	}
	for _, err := range judged {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			errs = append(errs, joined.Unwrap()...)
		} else if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// conflicts reports settings that are usable each by itself but not together. wrong are those that
// are not usable by themselves.
func (s *settings) conflicts(wrong map[string]error) []error {
	var errs []error
	bad := func(name, value, want string) {
		if wrong[name] == nil {
			errs = append(errs, &setting.Error{Field: name, Value: value, Want: want})
		}
	}
	if most := s.PollTimeout; most > 0 && s.RequestTimeout > most {
		bad("ROLLCALL_REQUEST_TIMEOUT", s.RequestTimeout.String(),
			"at most ROLLCALL_POLL_TIMEOUT, which is "+most.String()+
				": a request is part of a sweep")
	}

	const creds, nkey, ca, cert, key = "ROLLCALL_NATS_CREDS_FILE", "ROLLCALL_NATS_NKEY_FILE",
		"ROLLCALL_NATS_CA_FILE", "ROLLCALL_NATS_CERT_FILE", "ROLLCALL_NATS_KEY_FILE"
	if !s.env.isSet("ROLLCALL_NATS_URL") && !s.env.isSet("ROLLCALL_NATS_URL_FILE") {
		for _, name := range []string{creds, nkey, ca, cert, key} {
			if s.env.isSet(name) {
				bad(name, "", "ROLLCALL_NATS_URL as well, or not to be set: "+
					"the embedded server is reached without it")
			}
		}
		if n := s.NATSReplicas; n > 1 {
			bad("ROLLCALL_NATS_REPLICAS", fmt.Sprint(n),
				"1, or ROLLCALL_NATS_URL as well: the embedded server is a single one")
		}
	}
	if s.env.isSet(cert) != s.env.isSet(key) {
		bad(cert+" and "+key, "", "both or neither: a certificate is of no use without its key")
	} else if c, k := s.NATSCertFile, s.NATSKeyFile; c != "" && k != "" && !matchingPair(c, k) {
		bad(cert+" and "+key, "", "a certificate and the key that belongs to it, both in PEM")
	}
	if s.env.isSet(creds) && s.env.isSet(nkey) {
		bad(creds+" and "+nkey, "", "one of the two: each is a whole way to sign in")
	}

	listens := [][2]string{
		{"ROLLCALL_HTTP_LISTEN", s.HTTPListen}, {"ROLLCALL_OPS_LISTEN", s.OpsListen},
	}
	if s.embedded() {
		listens = append(listens, [2]string{"ROLLCALL_NATS_LISTEN", s.NATSListen})
	}
	for i, a := range listens {
		for _, b := range listens[i+1:] {
			if a[1] == b[1] && a[1] != "" && !anyPort(a[1]) {
				bad(a[0], a[1], "another address than "+b[0]+" has")
			}
		}
	}
	return errs
}

func anyPort(addr string) bool {
	_, port, _ := net.SplitHostPort(addr)
	return strings.Trim(port, "0") == ""
}

// defaultInstance names this replica so that a look at the lease leads to the process.
func defaultInstance() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown-host"
	}
	return fmt.Sprintf("%s-%d", host, os.Getpid())
}
