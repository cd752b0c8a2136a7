package main

import (
	"bytes"
	gocmp "cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nkeys"

	"github.com/rollcall-events/rollcall/internal/setting"
)

func init() { setting.Use(byField()) } // as main does

// setEnv makes env all that the environment says of rollcall, for the time of the test.
func setEnv(t *testing.T, env map[string]string) {
	t.Helper()
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, envPrefix) {
			t.Setenv(name, "") // restores it afterwards
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, value := range env {
		t.Setenv(name, value)
	}
}

// working is an environment that says no more than it must, with some changes.
func working(changes map[string]string) map[string]string {
	env := map[string]string{
		"ROLLCALL_ISDP_URL":           "https://isdp.example.com",
		"ROLLCALL_ISDP_CLIENT_ID":     "isdp-1234-openapi",
		"ROLLCALL_ISDP_CLIENT_SECRET": "client secret",
		"ROLLCALL_ISDP_USERNAME":      "application",
		"ROLLCALL_ISDP_PASSWORD":      "token",
	}
	for name, value := range changes {
		env[name] = value
	}
	return env
}

func mustLoad(t *testing.T, env map[string]string) *settings {
	t.Helper()
	setEnv(t, env)
	s, warnings, err := loadSettings(withVendor)
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 0 {
		t.Errorf("warnings: %q", warnings)
	}
	return s
}

// unusable loads settings that are wrong and gives what is said of them, by variable.
func unusable(t *testing.T, env map[string]string) map[string]*setting.Error {
	t.Helper()
	setEnv(t, env)
	_, _, err := loadSettings(withVendor)
	if err == nil {
		t.Fatal("the settings were taken")
	}
	told := map[string]*setting.Error{}
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		var one *setting.Error
		if !errors.As(e, &one) {
			t.Fatalf("%v is a %T", e, e)
		}
		if strings.Contains(one.Error(), "\n") {
			t.Errorf("more than one line: %s", one)
		}
		if told[one.Field] != nil {
			t.Errorf("told twice: %s", one)
		}
		told[one.Field] = one
	}
	return told
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaults(t *testing.T) {
	s := mustLoad(t, working(nil))
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name      string
		got, want any
	}{
		{"ISDPURL", s.ISDPURL, "https://isdp.example.com"},
		{"ISDPClientID", s.ISDPClientID.reveal(), "isdp-1234-openapi"},
		{"ISDPClientSecret", s.ISDPClientSecret.reveal(), "client secret"},
		{"ISDPUsername", s.ISDPUsername.reveal(), "application"},
		{"ISDPPassword", s.ISDPPassword.reveal(), "token"},
		{"ISDPTypes", s.ISDPTypes, []int(nil)},
		{"ISDPCAFile", s.ISDPCAFile, ""},
		{"TenantID", s.TenantID, int64(0)},
		{"PollInterval", s.PollInterval, 5 * time.Second},
		{"PollTimeout", s.PollTimeout, time.Duration(0)},
		{"RequestTimeout", s.RequestTimeout, 10 * time.Second},
		{"PageSize", s.PageSize, 50},
		{"Concurrency", s.Concurrency, 4},
		{"RateLimit", s.RateLimit, 1.0},
		{"RemoveAfter", s.RemoveAfter, 2},
		{"MaxMissing", s.MaxMissing, 0.5},
		{"MissingHold", s.MissingHold, 15 * time.Minute},
		{"QuietFields", s.QuietFields, []string{
			"lastUpdateTimestamp", "lastUpdateDate", "lastUpdatedBy", "lastUpdateName",
			"agentSignInTime", "agentSignInDate", "*"}},
		{"BufferEvents", s.BufferEvents, 100000},
		{"NATSURL", s.NATSURL.reveal(), ""},
		{"embedded", s.embedded(), true},
		{"NATSListen", s.NATSListen, "127.0.0.1:4222"},
		{"DataDir", s.DataDir, "./data"},
		{"NATSCredsFile", s.NATSCredsFile, ""},
		{"NATSNKeyFile", s.NATSNKeyFile, ""},
		{"NATSCAFile", s.NATSCAFile, ""},
		{"NATSCertFile", s.NATSCertFile, ""},
		{"NATSKeyFile", s.NATSKeyFile, ""},
		{"NATSReplicas", s.NATSReplicas, 1},
		{"NATSManage", s.NATSManage, true},
		{"EventsMaxAge", s.EventsMaxAge, 7 * 24 * time.Hour},
		{"NATSMaxBytes", s.NATSMaxBytes, int64(1 << 30)},
		{"LeaseTTL", s.LeaseTTL, 10 * time.Second},
		{"Instance", s.Instance, fmt.Sprintf("%s-%d", host, os.Getpid())},
		{"HTTPListen", s.HTTPListen, "127.0.0.1:8080"},
		{"OpsListen", s.OpsListen, ""},
		{"LogLevel", s.LogLevel, slog.LevelInfo},
		{"LogFormat", s.LogFormat, "text"},
	} {
		if d := cmp.Diff(c.want, c.got); d != "" {
			t.Errorf("%s:\n%s", c.name, d)
		}
	}
}

// Every variable is explained, and has a name and a field of its own.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range new(settings).variables() {
		if seen[v.name] || seen[v.field] {
			t.Errorf("%s or its field %s is in the table twice", v.name, v.field)
		}
		seen[v.name], seen[v.field] = true, true
		if v.field == "" || v.takes == "" {
			t.Errorf("%s isn't explained", v.name)
		}
	}
}

func TestValues(t *testing.T) {
	get := map[string]func(*settings) any{
		"ROLLCALL_ISDP_URL":           func(s *settings) any { return s.ISDPURL },
		"ROLLCALL_ISDP_CLIENT_ID":     func(s *settings) any { return s.ISDPClientID.reveal() },
		"ROLLCALL_ISDP_CLIENT_SECRET": func(s *settings) any { return s.ISDPClientSecret.reveal() },
		"ROLLCALL_ISDP_USERNAME":      func(s *settings) any { return s.ISDPUsername.reveal() },
		"ROLLCALL_ISDP_PASSWORD":      func(s *settings) any { return s.ISDPPassword.reveal() },
		"ROLLCALL_ISDP_TYPES":         func(s *settings) any { return s.ISDPTypes },
		"ROLLCALL_TENANT_ID":          func(s *settings) any { return s.TenantID },
		"ROLLCALL_POLL_INTERVAL":      func(s *settings) any { return s.PollInterval },
		"ROLLCALL_POLL_TIMEOUT":       func(s *settings) any { return s.PollTimeout },
		"ROLLCALL_REQUEST_TIMEOUT":    func(s *settings) any { return s.RequestTimeout },
		"ROLLCALL_PAGE_SIZE":          func(s *settings) any { return s.PageSize },
		"ROLLCALL_CONCURRENCY":        func(s *settings) any { return s.Concurrency },
		"ROLLCALL_RATE_LIMIT":         func(s *settings) any { return s.RateLimit },
		"ROLLCALL_GLANCES":            func(s *settings) any { return s.Glances },
		"ROLLCALL_QUERY":              func(s *settings) any { return s.Query },
		"ROLLCALL_REMOVE_AFTER":       func(s *settings) any { return s.RemoveAfter },
		"ROLLCALL_MAX_MISSING":        func(s *settings) any { return s.MaxMissing },
		"ROLLCALL_MISSING_HOLD":       func(s *settings) any { return s.MissingHold },
		"ROLLCALL_QUIET_FIELDS":       func(s *settings) any { return s.QuietFields },
		"ROLLCALL_BUFFER_EVENTS":      func(s *settings) any { return s.BufferEvents },
		"ROLLCALL_NATS_URL":           func(s *settings) any { return s.NATSURL.reveal() },
		"ROLLCALL_NATS_LISTEN":        func(s *settings) any { return s.NATSListen },
		"ROLLCALL_DATA_DIR":           func(s *settings) any { return s.DataDir },
		"ROLLCALL_NATS_MANAGE":        func(s *settings) any { return s.NATSManage },
		"ROLLCALL_EVENTS_MAX_AGE":     func(s *settings) any { return s.EventsMaxAge },
		"ROLLCALL_NATS_MAX_BYTES":     func(s *settings) any { return s.NATSMaxBytes },
		"ROLLCALL_LEASE_TTL":          func(s *settings) any { return s.LeaseTTL },
		"ROLLCALL_INSTANCE":           func(s *settings) any { return s.Instance },
		"ROLLCALL_HTTP_LISTEN":        func(s *settings) any { return s.HTTPListen },
		"ROLLCALL_OPS_LISTEN":         func(s *settings) any { return s.OpsListen },
		"ROLLCALL_LOG_LEVEL":          func(s *settings) any { return s.LogLevel },
		"ROLLCALL_LOG_FORMAT":         func(s *settings) any { return s.LogFormat },
	}
	for _, c := range []struct {
		name, value string
		want        any
	}{
		{"ROLLCALL_ISDP_URL", " https://gateway.example.com:8443/isdp/ ",
			"https://gateway.example.com:8443/isdp/"},
		{"ROLLCALL_ISDP_URL", "http://127.0.0.1:8099", "http://127.0.0.1:8099"},
		{"ROLLCALL_ISDP_URL", "http://[::1]:8099", "http://[::1]:8099"},
		{"ROLLCALL_ISDP_URL", "http://localhost", "http://localhost"},
		{"ROLLCALL_ISDP_CLIENT_ID", " spaces stay ", " spaces stay "},
		{"ROLLCALL_ISDP_CLIENT_SECRET", "中文,\"", "中文,\""},
		{"ROLLCALL_ISDP_USERNAME", "u", "u"},
		{"ROLLCALL_ISDP_PASSWORD", "p\n", "p\n"},
		{"ROLLCALL_ISDP_TYPES", "0, 10", []int{0, 10}},
		{"ROLLCALL_ISDP_TYPES", "7", []int{7}},
		{"ROLLCALL_TENANT_ID", "9007199254740993", int64(9007199254740993)},
		{"ROLLCALL_POLL_INTERVAL", "250ms", 250 * time.Millisecond},
		{"ROLLCALL_POLL_TIMEOUT", "5m", 5 * time.Minute},
		{"ROLLCALL_REQUEST_TIMEOUT", "1m30s", 90 * time.Second},
		{"ROLLCALL_PAGE_SIZE", "1", 1},
		{"ROLLCALL_PAGE_SIZE", "50\r", 50},
		{"ROLLCALL_CONCURRENCY", "1", 1},
		{"ROLLCALL_RATE_LIMIT", "0.5", 0.5},
		{"ROLLCALL_GLANCES", "off", false},
		{"ROLLCALL_GLANCES", "auto", true},
		{"ROLLCALL_QUERY", "off", false},
		{"ROLLCALL_QUERY", "on", true},
		{"ROLLCALL_REMOVE_AFTER", "1", 1},
		{"ROLLCALL_MAX_MISSING", "1", 1.0},
		{"ROLLCALL_MISSING_HOLD", "1h", time.Hour},
		{"ROLLCALL_QUIET_FIELDS", "capacity, *", []string{"capacity", "*"}},
		{"ROLLCALL_QUIET_FIELDS", "none", []string{}},
		{"ROLLCALL_BUFFER_EVENTS", "1", 1},
		{"ROLLCALL_NATS_URL", "nats://a:4222, tls://u:p@b,c,c:4223",
			"nats://a:4222, tls://u:p@b,c,c:4223"},
		{"ROLLCALL_NATS_URL", "wss://a/path", "wss://a/path"},
		{"ROLLCALL_NATS_URL", "nats://[::1]:4222,127.0.0.1:4222,nats://u:p@h_1.example:1",
			"nats://[::1]:4222,127.0.0.1:4222,nats://u:p@h_1.example:1"},
		{"ROLLCALL_NATS_LISTEN", ":0", ":0"},
		{"ROLLCALL_NATS_LISTEN", "[::1]:4222", "[::1]:4222"},
		{"ROLLCALL_DATA_DIR", "/var/lib/roll call", "/var/lib/roll call"},
		{"ROLLCALL_NATS_MANAGE", "false", false},
		{"ROLLCALL_EVENTS_MAX_AGE", "1s", time.Second},
		{"ROLLCALL_NATS_MAX_BYTES", "1048576", int64(1 << 20)},
		{"ROLLCALL_NATS_MAX_BYTES", "512MiB", int64(512 << 20)},
		{"ROLLCALL_NATS_MAX_BYTES", "1024KiB", int64(1 << 20)},
		{"ROLLCALL_NATS_MAX_BYTES", "2 TiB", int64(2 << 40)},
		{"ROLLCALL_LEASE_TTL", "2s", 2 * time.Second},
		{"ROLLCALL_INSTANCE", "pod/rollcall-0", "pod/rollcall-0"},
		{"ROLLCALL_HTTP_LISTEN", "off", ""},
		{"ROLLCALL_HTTP_LISTEN", "localhost:0", "localhost:0"},
		{"ROLLCALL_OPS_LISTEN", "0.0.0.0:9090", "0.0.0.0:9090"},
		{"ROLLCALL_LOG_LEVEL", "debug", slog.LevelDebug},
		{"ROLLCALL_LOG_LEVEL", "WARN", slog.LevelWarn},
		{"ROLLCALL_LOG_LEVEL", "error", slog.LevelError},
		{"ROLLCALL_LOG_FORMAT", "json", "json"},
	} {
		t.Run(c.name+"="+c.value, func(t *testing.T) {
			s := mustLoad(t, working(map[string]string{c.name: c.value}))
			if d := cmp.Diff(c.want, get[c.name](s)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestUnusableValues(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	text := write(t, "text", "nothing of use\n")
	for name, values := range map[string][]string{
		"ROLLCALL_ISDP_URL": {"https://h:0", "https://:::", "https://::1", "isdp.example.com",
			"http://isdp.example.com", "https://", "https://u@h", "https://h?q", "https://h#f",
			"ftp://h", "https:h",
			"https://h:x", "https://h:70000", "http://localhost.example.com", "%"},
		"ROLLCALL_ISDP_TYPES": {"video", "0,,10", "0,0", "0,00", "-1", "1.5", ",",
			"99999999999999999999"},
		"ROLLCALL_ISDP_CA_FILE":    {missing, text, t.TempDir()},
		"ROLLCALL_TENANT_ID":       {"0", "-886", "tenant", "0x10", "1_000", "9223372036854775808"},
		"ROLLCALL_POLL_INTERVAL":   {"5", "0s", "-1s", "soon", "1ns"},
		"ROLLCALL_POLL_TIMEOUT":    {"0s", "x"},
		"ROLLCALL_REQUEST_TIMEOUT": {"0s", "10"},
		"ROLLCALL_PAGE_SIZE":       {"0", "51", "-1", "many", "5e1", "4294967297"},
		"ROLLCALL_CONCURRENCY":     {"0", "-4", "x"},
		"ROLLCALL_RATE_LIMIT":      {"0", "-1", "NaN", "Inf", "1e999", "10/s"},
		"ROLLCALL_GLANCES":         {"on", "1", "never"},
		"ROLLCALL_QUERY":           {"auto", "true", "0"},
		"ROLLCALL_REMOVE_AFTER":    {"0", "-1", "2.0"},
		"ROLLCALL_MAX_MISSING":     {"0", "1.01", "-0.5", "50%", "nan"},
		"ROLLCALL_MISSING_HOLD":    {"0", "15"},
		"ROLLCALL_QUIET_FIELDS":    {"a,,b", "a,a", "none,a", ","},
		"ROLLCALL_BUFFER_EVENTS":   {"0", "100k"},
		"ROLLCALL_NATS_URL": {"http://a", "nats://", "nats://a:x", "nats://a,ws://b", "a,,b",
			"nats://a b", ":::", "::", "nats://:::", "::1",
			"nats://a:0", "a:00", "nats://a:", "a:65536", "tls://[::1", "nats://[a]", "a:1:2",
			"nats://-", ":4222", "nats://u:p@:4222", "a,b:0"},
		"ROLLCALL_NATS_LISTEN": {"4222", "off", "127.0.0.1", "127.0.0.1:nats", "h:65536", "h:-1",
			"a b:1", "[nonsense]:1", "[a:b]:1"},
		"ROLLCALL_NATS_REPLICAS":  {"0", "6", "three"},
		"ROLLCALL_NATS_MANAGE":    {"yes", "2"},
		"ROLLCALL_EVENTS_MAX_AGE": {"0s", "500ms", "1500ms", "7d", "-1h"},
		"ROLLCALL_NATS_MAX_BYTES": {"0", "1GB", "1G", "1.5GiB", "-1GiB", "GiB", "1048575",
			"9999999999GiB", "1gib"},
		"ROLLCALL_LEASE_TTL":   {"1s", "2500ms", "10"},
		"ROLLCALL_INSTANCE":    {"two words", "bell\a", strings.Repeat("x", 129), "\xff"},
		"ROLLCALL_HTTP_LISTEN": {"8080", "none", "on"},
		"ROLLCALL_OPS_LISTEN":  {"9090", "off"},
		"ROLLCALL_LOG_LEVEL":   {"trace", "3", "info+1"},
		"ROLLCALL_LOG_FORMAT":  {"xml"},
		// any path will do here; whether it can be written to shows at the start
		"ROLLCALL_DATA_DIR": nil,
	} {
		for _, value := range values {
			t.Run(name+"="+value, func(t *testing.T) {
				told := unusable(t, working(map[string]string{name: value}))
				e := told[name]
				if e == nil || len(told) != 1 {
					t.Fatalf("told: %v", told)
				}
				if e.Want == "" || strings.Contains(e.Want, "`") {
					t.Errorf("what would be right: %q", e.Want)
				}
				shown := e.Value == shortened(value) || name == "ROLLCALL_NATS_URL" &&
					e.Value == "" ||
					name == "ROLLCALL_ISDP_URL" && e.Value == shownURL(value)
				if !shown {
					t.Errorf("shows %q", e.Value)
				}
			})
		}
	}
}

func TestEmptyIsNotSet(t *testing.T) {
	env := map[string]string{}
	for _, name := range names() {
		env[name] = ""
	}
	env["ROLLCALL_PAGE_SIZE"] = " \t"
	for name, value := range working(nil) {
		env[name] = value
	}
	want := mustLoad(t, working(nil))
	got := mustLoad(t, env)
	if got.env.isSet("ROLLCALL_PAGE_SIZE") || got.env.isSet("ROLLCALL_DATA_DIR") {
		t.Error("empty is taken for set")
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(settings{}, secret{})); d != "" {
		t.Error(d)
	}
}

func TestAllToldTogether(t *testing.T) {
	setEnv(t, map[string]string{
		"ROLLCALL_ISDP_URL":      "isdp.example.com",
		"ROLLCALL_ISDP_USERNAME": "application",
		"ROLLCALL_PAGE_SIZE":     "51",
		"ROLLCALL_MAX_MISSING":   "50%",
		"ROLLCALL_LOG_FORMAT":    "xml\ninjected",
		"ROLLCALL_ISDP_PASSWRD":  "canary",
	})
	_, warnings, err := loadSettings(withVendor)
	want := strings.Join([]string{
		`ROLLCALL_ISDP_URL is "isdp.example.com": want the base URL of the ISDP+ domain, ` +
			`https://… without user info, query and fragment; http:// for loopback only`,
		`ROLLCALL_ISDP_CLIENT_ID: want the client id of the OpenAPI account (isdp-…-openapi); ` +
			`it is not set and has no default`,
		`ROLLCALL_ISDP_CLIENT_SECRET: want the client secret of the OpenAPI account; ` +
			`it is not set and has no default`,
		`ROLLCALL_ISDP_PASSWORD: want the application token; it is not set and has no default`,
		`ROLLCALL_PAGE_SIZE is "51": want a whole number from 1 to 50`,
		`ROLLCALL_MAX_MISSING is "50%": want a number above 0 and at most 1`,
		`ROLLCALL_LOG_FORMAT is "xml\ninjected": want text or json`,
	}, "\n")
	if d := cmp.Diff(want, fmt.Sprint(err)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"ROLLCALL_ISDP_PASSWRD is none of rollcall's settings and has no " +
		"effect; did you mean ROLLCALL_ISDP_PASSWORD?"}, warnings); d != "" {
		t.Error(d)
	}
}

// What polls no vendor does without its settings, whatever they hold.
func TestWithoutVendor(t *testing.T) {
	setEnv(t, map[string]string{
		"ROLLCALL_ISDP_URL": "nonsense", "ROLLCALL_ISDP_TYPES": "x",
		"ROLLCALL_ISDP_CA_FILE":       "/missing",
		"ROLLCALL_ISDP_PASSWORD_FILE": "/missing", "ROLLCALL_POLL_INTERVAL": "1s",
		"ROLLCALL_TENANT_ID": "886",
	})
	s, _, err := loadSettings(withoutVendor)
	if err != nil {
		t.Fatal(err)
	}
	if s.PollInterval != time.Second || s.TenantID != 886 || s.DataDir != "./data" {
		t.Errorf("interval %v, tenant %d, data %q", s.PollInterval, s.TenantID, s.DataDir)
	}
	if !s.env.isSet("ROLLCALL_POLL_INTERVAL") || s.env.isSet("ROLLCALL_DATA_DIR") {
		t.Error("isSet does not tell a choice from a default")
	}
	setEnv(t, map[string]string{"ROLLCALL_POLL_INTERVAL": "x"})
	if _, _, err := loadSettings(withoutVendor); err == nil {
		t.Error("an unusable interval was taken")
	}
}

// envconfig would take the name without the prefix too, were the prefix given to it.
func TestOnlyFullNames(t *testing.T) {
	t.Setenv("LOG_LEVEL", "debug")
	t.Setenv("INSTANCE", "someone else's")
	if s := mustLoad(t, working(nil)); s.LogLevel != slog.LevelInfo ||
		strings.Contains(s.Instance, "else") {
		t.Errorf("level %v, instance %q", s.LogLevel, s.Instance)
	}
}

func TestSecretFiles(t *testing.T) {
	secrets := map[string]func(*settings) secret{
		"ROLLCALL_ISDP_CLIENT_ID":     func(s *settings) secret { return s.ISDPClientID },
		"ROLLCALL_ISDP_CLIENT_SECRET": func(s *settings) secret { return s.ISDPClientSecret },
		"ROLLCALL_ISDP_USERNAME":      func(s *settings) secret { return s.ISDPUsername },
		"ROLLCALL_ISDP_PASSWORD":      func(s *settings) secret { return s.ISDPPassword },
		"ROLLCALL_NATS_URL":           func(s *settings) secret { return s.NATSURL },
	}
	for name, get := range secrets {
		in := func(path string) map[string]string {
			return working(map[string]string{name: "", name + "_FILE": path})
		}
		for content, want := range map[string]string{
			"nats.example.com":       "nats.example.com",
			"nats.example.com\n":     "nats.example.com",
			"nats.example.com\r\n":   "nats.example.com",
			"nats.example.com\n\n\n": "nats.example.com\n\n", // one newline only
		} {
			if name == "ROLLCALL_NATS_URL" {
				want = strings.TrimSpace(want) // a URL ends with no newline
			}
			t.Run(fmt.Sprintf("%s/%q", name, content), func(t *testing.T) {
				if got := get(mustLoad(t, in(write(t, "secret", content)))).reveal(); got != want {
					t.Errorf("read %q, not %q", got, want)
				}
			})
		}
		t.Run(name+"/both", func(t *testing.T) {
			env := working(map[string]string{name: "canary",
				name + "_FILE": write(t, "secret", "canary")})
			told := unusable(t, env)
			if e := told[name+" and "+name+"_FILE"]; e == nil || len(told) != 1 ||
				strings.Contains(e.Error(), "canary") {
				t.Errorf("told: %v", told)
			}
		})
		for what, path := range map[string]string{
			"missing": filepath.Join(t.TempDir(), "missing"), "directory": t.TempDir(),
			"empty": write(t, "secret", "\n"),
			"large": write(t, "secret", strings.Repeat("x", 1<<20+1)),
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				told := unusable(t, in(path))
				if e := told[name+"_FILE"]; e == nil || len(told) != 1 || e.Value != path {
					t.Errorf("told: %v", told)
				}
			})
		}
	}
	t.Run("reason", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "missing")
		_, err := os.Open(path)
		told := unusable(t, working(map[string]string{"ROLLCALL_ISDP_PASSWORD": "",
			"ROLLCALL_ISDP_PASSWORD_FILE": path}))
		want := fmt.Sprintf("ROLLCALL_ISDP_PASSWORD_FILE is %q: want the path of a readable "+
			"file (%v)", path, errors.Unwrap(err))
		if got := told["ROLLCALL_ISDP_PASSWORD_FILE"].Error(); got != want {
			t.Error(got)
		}
	})
}

// pair writes a certificate and its key.
func pair(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE",
			Bytes: der}))),
		write(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY",
			Bytes: keyDER})))
}

// seeds writes a user's seed by itself and as part of a creds file, and an account's seed.
func seeds(t *testing.T) (user, creds, account string) {
	t.Helper()
	seed := func(create func() (nkeys.KeyPair, error)) string {
		pair, err := create()
		if err != nil {
			t.Fatal(err)
		}
		seed, err := pair.Seed()
		if err != nil {
			t.Fatal(err)
		}
		return string(seed)
	}
	s := seed(nkeys.CreateUser)
	return write(t, "user.nk", s+"\n"),
		write(t, "user.creds", "-----BEGIN NATS USER JWT-----\neyJ0.eyJ1.c2ln\n------END NATS "+
			"USER JWT------\n\n"+
			"-----BEGIN USER NKEY SEED-----\n"+s+"\n------END USER NKEY SEED------\n"),
		write(t, "account.nk", seed(nkeys.CreateAccount)+"\n")
}

func TestFiles(t *testing.T) {
	cert, key := pair(t)
	_, otherKey := pair(t)
	user, creds, account := seeds(t)
	const url = "ROLLCALL_NATS_URL"

	s := mustLoad(t, working(map[string]string{
		"ROLLCALL_ISDP_CA_FILE": cert, url: "tls://nats", "ROLLCALL_NATS_CA_FILE": cert,
		"ROLLCALL_NATS_CREDS_FILE": creds, "ROLLCALL_NATS_CERT_FILE": cert,
		"ROLLCALL_NATS_KEY_FILE": key,
	}))
	if pool, err := s.vendorRoots()(); pool == nil || err != nil {
		t.Errorf("no extra CA: %v", err)
	}
	if s.NATSCAFile != cert || s.NATSCredsFile != creds || s.NATSCertFile != cert ||
		s.NATSKeyFile != key {
		t.Error("paths are not kept")
	}
	if s = mustLoad(t, working(map[string]string{url: "nats",
		"ROLLCALL_NATS_NKEY_FILE": user})); s.NATSNKeyFile != user {
		t.Error("the NKey's path is not kept")
	}

	for what, c := range map[string]struct {
		env  map[string]string
		told string
	}{
		"missing CA": {map[string]string{"ROLLCALL_NATS_CA_FILE": "/missing"},
			"ROLLCALL_NATS_CA_FILE"},
		"CA without any": {map[string]string{"ROLLCALL_NATS_CA_FILE": key},
			"ROLLCALL_NATS_CA_FILE"},
		"creds are a seed": {map[string]string{"ROLLCALL_NATS_CREDS_FILE": user},
			"ROLLCALL_NATS_CREDS_FILE"},
		"seed is a cert": {map[string]string{"ROLLCALL_NATS_NKEY_FILE": cert},
			"ROLLCALL_NATS_NKEY_FILE"},
		"account's seed": {map[string]string{"ROLLCALL_NATS_NKEY_FILE": account},
			"ROLLCALL_NATS_NKEY_FILE"},
		"missing cert": {map[string]string{"ROLLCALL_NATS_CERT_FILE": "/missing",
			"ROLLCALL_NATS_KEY_FILE": key}, "ROLLCALL_NATS_CERT_FILE"},
		"cert alone": {map[string]string{"ROLLCALL_NATS_CERT_FILE": cert},
			"ROLLCALL_NATS_CERT_FILE and ROLLCALL_NATS_KEY_FILE"},
		"key alone": {map[string]string{"ROLLCALL_NATS_KEY_FILE": key},
			"ROLLCALL_NATS_CERT_FILE and ROLLCALL_NATS_KEY_FILE"},
		"another's key": {map[string]string{"ROLLCALL_NATS_CERT_FILE": cert,
			"ROLLCALL_NATS_KEY_FILE": otherKey},
			"ROLLCALL_NATS_CERT_FILE and ROLLCALL_NATS_KEY_FILE"},
		"two ways to sign in": {map[string]string{"ROLLCALL_NATS_CREDS_FILE": creds,
			"ROLLCALL_NATS_NKEY_FILE": user},
			"ROLLCALL_NATS_CREDS_FILE and ROLLCALL_NATS_NKEY_FILE"},
	} {
		t.Run(what, func(t *testing.T) {
			c.env[url] = "nats"
			if told := unusable(t, working(c.env)); told[c.told] == nil || len(told) != 1 {
				t.Errorf("told: %v", told)
			}
		})
	}
}

func TestConflicts(t *testing.T) {
	cert, key := pair(t)
	user, creds, _ := seeds(t)
	for what, c := range map[string]struct {
		env  map[string]string
		told []string
	}{
		"request longer than sweep": {map[string]string{"ROLLCALL_POLL_TIMEOUT": "5s"},
			[]string{"ROLLCALL_REQUEST_TIMEOUT"}},
		"replicas of one server": {map[string]string{"ROLLCALL_NATS_REPLICAS": "3"},
			[]string{"ROLLCALL_NATS_REPLICAS"}},
		"creds for nobody": {map[string]string{"ROLLCALL_NATS_CREDS_FILE": creds},
			[]string{"ROLLCALL_NATS_CREDS_FILE"}},
		"NKey for nobody": {map[string]string{"ROLLCALL_NATS_NKEY_FILE": user},
			[]string{"ROLLCALL_NATS_NKEY_FILE"}},
		"TLS with nobody": {map[string]string{"ROLLCALL_NATS_CA_FILE": cert,
			"ROLLCALL_NATS_CERT_FILE": cert, "ROLLCALL_NATS_KEY_FILE": key},
			[]string{"ROLLCALL_NATS_CA_FILE", "ROLLCALL_NATS_CERT_FILE", "ROLLCALL_NATS_KEY_FILE"}},
		"board and ops": {map[string]string{"ROLLCALL_OPS_LISTEN": "127.0.0.1:8080"},
			[]string{"ROLLCALL_HTTP_LISTEN"}},
		"ops and NATS": {map[string]string{"ROLLCALL_OPS_LISTEN": "127.0.0.1:4222"},
			[]string{"ROLLCALL_OPS_LISTEN"}},
	} {
		t.Run(what, func(t *testing.T) {
			told := unusable(t, working(c.env))
			for _, name := range c.told {
				if told[name] == nil {
					t.Errorf("nothing of %s", name)
				}
			}
			if len(told) != len(c.told) {
				t.Errorf("told: %v", told)
			}
		})
	}
	for what, env := range map[string]map[string]string{
		"equal timeouts": {"ROLLCALL_POLL_TIMEOUT": "10s"},
		"replicas":       {"ROLLCALL_NATS_REPLICAS": "5", "ROLLCALL_NATS_URL": "nats"},
		"creds": {"ROLLCALL_NATS_CREDS_FILE": creds,
			"ROLLCALL_NATS_URL_FILE": write(t, "url", "nats")},
		"any ports": {"ROLLCALL_HTTP_LISTEN": "127.0.0.1:0",
			"ROLLCALL_OPS_LISTEN": "127.0.0.1:0"},
		"nothing embedded": {"ROLLCALL_HTTP_LISTEN": "127.0.0.1:4222",
			"ROLLCALL_NATS_URL": "nats"},
		"off and not there": {"ROLLCALL_HTTP_LISTEN": "off"},
	} {
		t.Run(what, func(t *testing.T) { mustLoad(t, working(env)) })
	}
}

// Whatever fails, nothing that is secret shows in what is said of it.
func TestNoSecretIsTold(t *testing.T) {
	const canary = "canary"
	file := write(t, "file", canary+"-in-file")
	credentials := []string{"ROLLCALL_ISDP_CLIENT_ID", "ROLLCALL_ISDP_CLIENT_SECRET",
		"ROLLCALL_ISDP_USERNAME", "ROLLCALL_ISDP_PASSWORD"}

	// Every other setting is unusable.
	wrong := map[string]string{"ROLLCALL_DATA_DIR": "\t"}
	for _, name := range names() {
		if !slices.Contains(credentials, name) && !strings.HasSuffix(name, "_FILE") &&
			name != "ROLLCALL_DATA_DIR" {
			wrong[name] = "not / usable"
		}
	}
	for _, url := range []string{
		"https://user:canary@isdp.example.com", "https://canary@isdp.example.com",
		"https://isdp.example.com?password=canary",
		"https://isdp.example.com#canary", "http://user:canary@h:x", "https://user:canary",
		"user:canary@h", "isdp:canary",
		"https:///user:canary@h", "https://user:ca/canary@h", "https://user:%canary@h",
		"//user:canary@h", "user@canary", "https:user:canary@h",
		"https://user:p?canary@h", "https://h/user:canary@", "nats://h,nats://user:p,canary@h",
		"nats://canary@h:x", "ht tp://user:canary@h",
		"https://canary:1/2@h", "https://canary:1?2@h", "https://canary:1#2@h",
	} {
		env := map[string]string{}
		for name, value := range wrong {
			env[name] = value
		}
		env["ROLLCALL_ISDP_URL"], env["ROLLCALL_NATS_URL"] = url, url+" x://"
		for i, name := range credentials {
			env[name] = canary
			if i%2 == 0 {
				env[name+"_FILE"] = file // both
			}
		}
		env["ROLLCALL_CLIENT_SECRET"] = canary // not one of ours
		env["ROLLCALL_NATS_CREDS_FILE"] = file
		env["ROLLCALL_NATS_NKEY_FILE"] = file
		env["ROLLCALL_NATS_CERT_FILE"] = file
		env["ROLLCALL_NATS_KEY_FILE"] = file
		env["ROLLCALL_NATS_CA_FILE"] = file
		env["ROLLCALL_ISDP_CA_FILE"] = file
		setEnv(t, env)
		s, warnings, err := loadSettings(withVendor)
		if err == nil || s != nil {
			t.Fatal("the settings were taken")
		}
		all := fmt.Sprintf("%v %+v %#v %q", err, err, err, warnings)
		if i := strings.Index(all, canary); i >= 0 {
			t.Errorf("%s: told: …%s", url, all[max(0, i-100):i+len(canary)])
		}
	}

	// A URL in place of anything else.
	setEnv(t, nil)
	for _, name := range names() {
		t.Setenv(name, "nats://user:canary@h, nats://user:canary@h")
	}
	if _, _, err := loadSettings(withVendor); err == nil || strings.Contains(err.Error(), canary) {
		t.Errorf("told: %v", err)
	}

	// The secret itself in place of the path to it.
	for _, value := range []string{"canary", "canary/+=", "-----BEGIN\ncanary/\n", "/\ncanary"} {
		env := working(map[string]string{"ROLLCALL_NATS_URL_FILE": value})
		for _, name := range append(slices.Clone(credentials), "ROLLCALL_NATS_CREDS",
			"ROLLCALL_NATS_NKEY", "ROLLCALL_NATS_KEY") {
			delete(env, name)
			env[name+"_FILE"] = value
		}
		told := unusable(t, env)
		if all := fmt.Sprint(told); strings.Contains(all, canary) {
			t.Errorf("told: %s", all)
		}
	}
}

// Whoever prints or logs the settings, or a secret, by mistake or not, shows none.
func TestSecretsDoNotPrint(t *testing.T) {
	const canary = "canary"
	s := mustLoad(t, working(map[string]string{
		"ROLLCALL_ISDP_CLIENT_ID": canary, "ROLLCALL_ISDP_CLIENT_SECRET": canary,
		"ROLLCALL_ISDP_USERNAME": canary,
		"ROLLCALL_ISDP_PASSWORD": "", "ROLLCALL_ISDP_PASSWORD_FILE": write(t, "password", canary),
		"ROLLCALL_NATS_URL": "nats://user:canary@h", "ROLLCALL_LOG_LEVEL": "debug",
	}))
	if s.ISDPPassword.reveal() != canary {
		t.Fatal("the secret itself is lost")
	}
	type holder struct{ hidden any }
	values := []any{s, *s, s.ISDPPassword, s.ISDPPassword, &s.ISDPPassword, s.NATSURL, holder{*s},
		holder{s.NATSURL},
		[]secret{s.ISDPPassword}, map[string]secret{"x": s.ISDPPassword}}
	for i, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p",
			"%T", "%5.2v", "%!"} {
			if got := fmt.Sprintf(verb, v); strings.Contains(got, canary) ||
				strings.Contains(got, "63616e617279") {
				t.Errorf("value %d, %s: %s", i, verb, got)
			}
		}
		if b, err := json.Marshal(v); err != nil || bytes.Contains(b, []byte(canary)) {
			t.Errorf("value %d: JSON: %s, %v", i, b, err)
		}
		for _, format := range []string{"text", "json"} {
			var b bytes.Buffer
			s.LogFormat = format
			newLogger(&b, s).Debug("settings", "value", v,
				slog.Any("group", slog.GroupValue(slog.Any("value", v))))
			if b.Len() == 0 || strings.Contains(b.String(), canary) {
				t.Errorf("value %d: %s log: %s", i, format, b.String())
			}
		}
	}
	if got := fmt.Sprintf("%v %d", s.ISDPPassword, s.ISDPPassword); got != "[redacted] [redacted]" {
		t.Errorf("prints as %s", got)
	}
}

func TestUnknownVariables(t *testing.T) {
	setEnv(t, working(map[string]string{
		"ROLLCALL_POLL_INTERVALL":         "canary",
		"ROLLCALL_INTERVAL":               "1s",
		"ROLLCALL_ISDP_SECRET":            "canary",
		"ROLLCALL_SOMETHING_ELSE":         "1",
		"ROLLCALL_HTTP_PORT":              "8080",
		"ROLLCALL_PORT":                   "tcp://10.0.0.1:80",
		"ROLLCALL_PORT_80_TCP":            "tcp://10.0.0.1:80",
		"ROLLCALL_PORT_80_TCP_ADDR":       "10.0.0.1",
		"ROLLCALL_SERVICE_HOST":           "10.0.0.1",
		"ROLLCALL_NATS_SERVICE_PORT":      "4222",
		"ROLLCALL_NATS_SERVICE_PORT_HTTP": "8222",
		"ROLLCALL_QUIET_FIELDS":           "agentSignInTimes,mood,capacity,x,*",
		"ROLLCALLER":                      "someone else",
	}))
	_, warnings, err := loadSettings(withVendor)
	if err != nil {
		t.Fatal(err)
	}
	const none = " is none of rollcall's settings and has no effect"
	want := []string{
		"ROLLCALL_HTTP_PORT" + none,
		"ROLLCALL_INTERVAL" + none + "; did you mean ROLLCALL_POLL_INTERVAL?",
		"ROLLCALL_ISDP_SECRET" + none + "; did you mean ROLLCALL_ISDP_CLIENT_SECRET?",
		"ROLLCALL_POLL_INTERVALL" + none + "; did you mean ROLLCALL_POLL_INTERVAL?",
		"ROLLCALL_SOMETHING_ELSE" + none,
		`ROLLCALL_QUIET_FIELDS names "agentSignInTimes", a field that the vendor does not ` +
			`document; did you mean agentSignInTime?`,
	}
	if d := cmp.Diff(want, warnings); d != "" {
		t.Error(d)
	}
}

func TestShortened(t *testing.T) {
	if got := shortened(strings.Repeat("中", 100)); got != strings.Repeat("中", 40)+"…" {
		t.Errorf("%q", got)
	}
}

// tableRow is a row on settings in a document: names, default and the rest.
var tableRow = regexp.MustCompile("(?m)^\\| (`ROLLCALL_[A-Z_]+`.*?) \\| (.*?) \\| (.*) \\|$")

// documentedDefault is the default of a variable, as documents write it; empty where that takes
// words.
func documentedDefault(v variable) string {
	switch {
	case v.required:
		return "none, required"
	case v.std == "" || v.std == defaultInstance():
		return ""
	}
	return "`" + strings.ReplaceAll(v.std, ",", "`, `") + "`"
}

// docs/settings.md has a row for each variable, with its default and what it takes. The meaning is
// the document's own.
func TestSettingsDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := tableRow.FindAllStringSubmatch(string(text), -1)
	variables := new(settings).variables()
	if len(rows) != len(variables) {
		t.Fatalf("%d rows, %d variables", len(rows), len(variables))
	}
	for i, v := range variables {
		name := "`" + v.name + "`"
		if v.secret {
			name += " or `…_FILE`"
		}
		takes, meaning, _ := strings.Cut(rows[i][3], " | ")
		std := gocmp.Or(documentedDefault(v), rows[i][2])
		if want := []string{name, std, v.takes}; !slices.Equal(want,
			[]string{rows[i][1], rows[i][2], takes}) || meaning == "" {
			t.Errorf("row %d is\n%s\nwant\n| %s | and the meaning |", i+1, rows[i][0],
				strings.Join(want, " | "))
		}
	}
}

// The README has ten of the rows, each with the default that the variable has.
func TestREADMESettings(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := tableRow.FindAllStringSubmatch(string(readme), -1)
	if len(rows) != 10 {
		t.Errorf("%d rows of settings, want ten", len(rows))
	}
	variables := new(settings).variables()
	for _, row := range rows {
		for name := range strings.SplitSeq(row[1], ", ") {
			i := slices.IndexFunc(variables,
				func(v variable) bool { return "`"+v.name+"`" == name })
			if i < 0 {
				t.Errorf("the README names %s", name)
			} else if want := gocmp.Or(documentedDefault(variables[i]), row[2]); row[2] != want {
				t.Errorf("the README says that %s is by default %s, want %s", name, row[2], want)
			}
		}
	}
}

// A secret in a file ends with the line, and some editors put a byte order mark in front of it.
func TestReadText(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("\ufeff s3cret \r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := readText(path); err != nil || text != " s3cret " {
		t.Errorf("%q, %v", text, err)
	}
}

// Whatever a package says of a setting names one that there is.
func TestFieldsInTexts(t *testing.T) {
	known, named := byField(), 0
	placeholder := regexp.MustCompile(`\{([A-Z][A-Za-z]*)\}`)
	for _, path := range sources(t) {
		src, err := os.ReadFile(filepath.Join("../..", path))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(src, []byte("setting.Text(")) {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, src, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if text, ok := n.(*ast.BasicLit); ok && text.Kind == token.STRING {
				for _, field := range placeholder.FindAllStringSubmatch(text.Value, -1) {
					named++
					if known[field[1]] == "" {
						t.Errorf("%s names the field %s, which no variable sets", path, field[1])
					}
				}
			}
			return true
		})
	}
	t.Logf("%d fields named", named)
}
