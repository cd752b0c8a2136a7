package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nkeys"

	"github.com/rollcall-events/rollcall/internal/setting"
)

var update = flag.Bool("update", false, "rewrite docs/settings.md from the code")

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
		{"ISDPURL", s.ISDPURL.value, "https://isdp.example.com"},
		{"ISDPClientID", s.ISDPClientID.value.reveal(), "isdp-1234-openapi"},
		{"ISDPClientSecret", s.ISDPClientSecret.value.reveal(), "client secret"},
		{"ISDPUsername", s.ISDPUsername.value.reveal(), "application"},
		{"ISDPPassword", s.ISDPPassword.value.reveal(), "token"},
		{"ISDPTypes", s.ISDPTypes.value, []int(nil)},
		{"ISDPCAFile", s.ISDPCAFile.value, ""},
		{"TenantID", s.TenantID.value, int64(0)},
		{"PollInterval", s.PollInterval.value, 5 * time.Second},
		{"PollTimeout", s.PollTimeout.value, time.Duration(0)},
		{"RequestTimeout", s.RequestTimeout.value, 10 * time.Second},
		{"PageSize", s.PageSize.value, 50},
		{"Concurrency", s.Concurrency.value, 4},
		{"RateLimit", s.RateLimit.value, 1.0},
		{"RemoveAfter", s.RemoveAfter.value, 2},
		{"MaxMissing", s.MaxMissing.value, 0.5},
		{"MissingHold", s.MissingHold.value, 15 * time.Minute},
		{"QuietFields", s.QuietFields.value, []string{
			"lastUpdateTimestamp", "lastUpdateDate", "lastUpdatedBy", "lastUpdateName", "agentSignInTime", "agentSignInDate", "*"}},
		{"BufferEvents", s.BufferEvents.value, 100000},
		{"NATSURL", s.NATSURL.value.reveal(), ""},
		{"embedded", s.embedded(), true},
		{"NATSListen", s.NATSListen.value, "127.0.0.1:4222"},
		{"DataDir", s.DataDir.value, "./data"},
		{"NATSCredsFile", s.NATSCredsFile.value, ""},
		{"NATSNKeyFile", s.NATSNKeyFile.value, ""},
		{"NATSCAFile", s.NATSCAFile.value, ""},
		{"NATSCertFile", s.NATSCertFile.value, ""},
		{"NATSKeyFile", s.NATSKeyFile.value, ""},
		{"NATSReplicas", s.NATSReplicas.value, 1},
		{"NATSManage", s.NATSManage.value, true},
		{"EventsMaxAge", s.EventsMaxAge.value, 7 * 24 * time.Hour},
		{"NATSMaxBytes", s.NATSMaxBytes.value, int64(1 << 30)},
		{"LeaseTTL", s.LeaseTTL.value, 10 * time.Second},
		{"Instance", s.Instance.value, fmt.Sprintf("%s-%d", host, os.Getpid())},
		{"HTTPListen", s.HTTPListen.value, "127.0.0.1:8080"},
		{"OpsListen", s.OpsListen.value, ""},
		{"LogLevel", s.LogLevel.value, slog.LevelInfo},
		{"LogFormat", s.LogFormat.value, "text"},
	} {
		if d := cmp.Diff(c.want, c.got); d != "" {
			t.Errorf("%s:\n%s", c.name, d)
		}
	}
}

// Every variable of the struct has one row in the table, which fills that variable.
func TestTableCoversTheStruct(t *testing.T) {
	s := new(settings)
	inTable := map[string]any{}
	files, fields := map[string]bool{}, map[string]bool{}
	for _, g := range s.groups() {
		for _, r := range g.rows {
			if inTable[r.name] != nil {
				t.Errorf("%s has two rows", r.name)
			}
			inTable[r.name] = r.target
			if r.file != "" {
				files[r.file] = true
			}
			if fields[r.field] && r.field != "" {
				t.Errorf("%s sets the field %s, which another one sets too", r.name, r.field)
			}
			fields[r.field] = true
			if r.about == "" || r.want == "" {
				t.Errorf("%s isn't explained", r.name)
			}
		}
	}
	v := reflect.ValueOf(s).Elem()
	if v.NumField() != len(inTable)+len(files) {
		t.Errorf("%d variables in the struct, %d in the table", v.NumField(), len(inTable)+len(files))
	}
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("envconfig")
		if files[name] {
			continue
		}
		if inTable[name] != v.Field(i).Addr().Interface() {
			t.Errorf("the field %s has the tag %q, whose row fills something else", v.Type().Field(i).Name, name)
		}
	}
}

func TestValues(t *testing.T) {
	get := map[string]func(*settings) any{
		"ROLLCALL_ISDP_URL":           func(s *settings) any { return s.ISDPURL.value },
		"ROLLCALL_ISDP_CLIENT_ID":     func(s *settings) any { return s.ISDPClientID.value.reveal() },
		"ROLLCALL_ISDP_CLIENT_SECRET": func(s *settings) any { return s.ISDPClientSecret.value.reveal() },
		"ROLLCALL_ISDP_USERNAME":      func(s *settings) any { return s.ISDPUsername.value.reveal() },
		"ROLLCALL_ISDP_PASSWORD":      func(s *settings) any { return s.ISDPPassword.value.reveal() },
		"ROLLCALL_ISDP_TYPES":         func(s *settings) any { return s.ISDPTypes.value },
		"ROLLCALL_TENANT_ID":          func(s *settings) any { return s.TenantID.value },
		"ROLLCALL_POLL_INTERVAL":      func(s *settings) any { return s.PollInterval.value },
		"ROLLCALL_POLL_TIMEOUT":       func(s *settings) any { return s.PollTimeout.value },
		"ROLLCALL_REQUEST_TIMEOUT":    func(s *settings) any { return s.RequestTimeout.value },
		"ROLLCALL_PAGE_SIZE":          func(s *settings) any { return s.PageSize.value },
		"ROLLCALL_CONCURRENCY":        func(s *settings) any { return s.Concurrency.value },
		"ROLLCALL_RATE_LIMIT":         func(s *settings) any { return s.RateLimit.value },
		"ROLLCALL_REMOVE_AFTER":       func(s *settings) any { return s.RemoveAfter.value },
		"ROLLCALL_MAX_MISSING":        func(s *settings) any { return s.MaxMissing.value },
		"ROLLCALL_MISSING_HOLD":       func(s *settings) any { return s.MissingHold.value },
		"ROLLCALL_QUIET_FIELDS":       func(s *settings) any { return s.QuietFields.value },
		"ROLLCALL_BUFFER_EVENTS":      func(s *settings) any { return s.BufferEvents.value },
		"ROLLCALL_NATS_URL":           func(s *settings) any { return s.NATSURL.value.reveal() },
		"ROLLCALL_NATS_LISTEN":        func(s *settings) any { return s.NATSListen.value },
		"ROLLCALL_DATA_DIR":           func(s *settings) any { return s.DataDir.value },
		"ROLLCALL_NATS_MANAGE":        func(s *settings) any { return s.NATSManage.value },
		"ROLLCALL_EVENTS_MAX_AGE":     func(s *settings) any { return s.EventsMaxAge.value },
		"ROLLCALL_NATS_MAX_BYTES":     func(s *settings) any { return s.NATSMaxBytes.value },
		"ROLLCALL_LEASE_TTL":          func(s *settings) any { return s.LeaseTTL.value },
		"ROLLCALL_INSTANCE":           func(s *settings) any { return s.Instance.value },
		"ROLLCALL_HTTP_LISTEN":        func(s *settings) any { return s.HTTPListen.value },
		"ROLLCALL_OPS_LISTEN":         func(s *settings) any { return s.OpsListen.value },
		"ROLLCALL_LOG_LEVEL":          func(s *settings) any { return s.LogLevel.value },
		"ROLLCALL_LOG_FORMAT":         func(s *settings) any { return s.LogFormat.value },
	}
	for _, c := range []struct {
		name, value string
		want        any
	}{
		{"ROLLCALL_ISDP_URL", " https://gateway.example.com:8443/isdp/ ", "https://gateway.example.com:8443/isdp/"},
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
		{"ROLLCALL_REMOVE_AFTER", "1", 1},
		{"ROLLCALL_MAX_MISSING", "1", 1.0},
		{"ROLLCALL_MISSING_HOLD", "1h", time.Hour},
		{"ROLLCALL_QUIET_FIELDS", "capacity, *", []string{"capacity", "*"}},
		{"ROLLCALL_QUIET_FIELDS", "none", []string{}},
		{"ROLLCALL_BUFFER_EVENTS", "1", 1},
		{"ROLLCALL_NATS_URL", "nats://a:4222, tls://u:p@b,c,c:4223", "nats://a:4222, tls://u:p@b,c,c:4223"},
		{"ROLLCALL_NATS_URL", "wss://a/path", "wss://a/path"},
		{"ROLLCALL_NATS_URL", "nats://[::1]:4222,127.0.0.1:4222,nats://u:p@h_1.example:1", "nats://[::1]:4222,127.0.0.1:4222,nats://u:p@h_1.example:1"},
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
		"ROLLCALL_ISDP_URL": {"https://h:0", "https://:::", "https://::1", "isdp.example.com", "http://isdp.example.com", "https://", "https://u@h", "https://h?q", "https://h#f", "ftp://h", "https:h",
			"https://h:x", "https://h:70000", "http://localhost.example.com", "%"},
		"ROLLCALL_ISDP_TYPES":      {"video", "0,,10", "0,0", "0,00", "-1", "1.5", ",", "99999999999999999999"},
		"ROLLCALL_ISDP_CA_FILE":    {missing, text, t.TempDir()},
		"ROLLCALL_TENANT_ID":       {"0", "-886", "tenant", "0x10", "1_000", "9223372036854775808"},
		"ROLLCALL_POLL_INTERVAL":   {"5", "0s", "-1s", "soon", "1ns"},
		"ROLLCALL_POLL_TIMEOUT":    {"0s", "x"},
		"ROLLCALL_REQUEST_TIMEOUT": {"0s", "10"},
		"ROLLCALL_PAGE_SIZE":       {"0", "51", "-1", "many", "5e1", "4294967297"},
		"ROLLCALL_CONCURRENCY":     {"0", "-4", "x"},
		"ROLLCALL_RATE_LIMIT":      {"0", "-1", "NaN", "Inf", "1e999", "10/s"},
		"ROLLCALL_REMOVE_AFTER":    {"0", "-1", "2.0"},
		"ROLLCALL_MAX_MISSING":     {"0", "1.01", "-0.5", "50%", "nan"},
		"ROLLCALL_MISSING_HOLD":    {"0", "15"},
		"ROLLCALL_QUIET_FIELDS":    {"a,,b", "a,a", "none,a", ","},
		"ROLLCALL_BUFFER_EVENTS":   {"0", "100k"},
		"ROLLCALL_NATS_URL": {"http://a", "nats://", "nats://a:x", "nats://a,ws://b", "a,,b", "nats://a b", ":::", "::", "nats://:::", "::1",
			"nats://a:0", "a:00", "nats://a:", "a:65536", "tls://[::1", "nats://[a]", "a:1:2", "nats://-", ":4222", "nats://u:p@:4222", "a,b:0"},
		"ROLLCALL_NATS_LISTEN":    {"4222", "off", "127.0.0.1", "127.0.0.1:nats", "h:65536", "h:-1", "a b:1", "[nonsense]:1", "[a:b]:1"},
		"ROLLCALL_NATS_REPLICAS":  {"0", "6", "three"},
		"ROLLCALL_NATS_MANAGE":    {"yes", "2"},
		"ROLLCALL_EVENTS_MAX_AGE": {"0s", "500ms", "1500ms", "7d", "-1h"},
		"ROLLCALL_NATS_MAX_BYTES": {"0", "1GB", "1G", "1.5GiB", "-1GiB", "GiB", "1048575", "9999999999GiB", "1gib"},
		"ROLLCALL_LEASE_TTL":      {"1s", "2500ms", "10"},
		"ROLLCALL_INSTANCE":       {"two words", "bell\a", strings.Repeat("x", 129), "\xff"},
		"ROLLCALL_HTTP_LISTEN":    {"8080", "none", "on"},
		"ROLLCALL_OPS_LISTEN":     {"9090", "off"},
		"ROLLCALL_LOG_LEVEL":      {"trace", "3", "info+1"},
		"ROLLCALL_LOG_FORMAT":     {"xml"},
		"ROLLCALL_DATA_DIR":       nil, // any path will do here; whether it can be written to shows at the start
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
				shown := e.Value == shortened(value) || name == "ROLLCALL_NATS_URL" && e.Value == "" ||
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
	for _, name := range new(settings).names() {
		env[name] = ""
	}
	env["ROLLCALL_PAGE_SIZE"] = " \t"
	for name, value := range working(nil) {
		env[name] = value
	}
	got, want := mustLoad(t, env), mustLoad(t, working(nil))
	if got.PageSize.isSet() || got.DataDir.isSet() {
		t.Error("empty is taken for set")
	}
	v, w := reflect.ValueOf(*got), reflect.ValueOf(*want)
	for i := range v.NumField() {
		// Secrets are pointers, so equal secrets differ: compare what they point at.
		a, b := v.Field(i).FieldByName("value"), w.Field(i).FieldByName("value")
		if a.Type() == reflect.TypeFor[secret]() {
			a, b = a.Field(0).Elem(), b.Field(0).Elem()
		}
		if fmt.Sprint(a) != fmt.Sprint(b) {
			t.Errorf("%s: %v, not %v", v.Type().Field(i).Name, a, b)
		}
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
	want := `ROLLCALL_ISDP_URL is "isdp.example.com": want the base URL of the ISDP+ domain, https://… without user info, query and fragment; http:// for loopback only
ROLLCALL_ISDP_CLIENT_ID: want the client id of the OpenAPI account (isdp-…-openapi); it is not set and has no default
ROLLCALL_ISDP_CLIENT_SECRET: want the client secret of the OpenAPI account; it is not set and has no default
ROLLCALL_ISDP_PASSWORD: want the application token; it is not set and has no default
ROLLCALL_PAGE_SIZE is "51": want a whole number from 1 to 50
ROLLCALL_MAX_MISSING is "50%": want a number above 0 and at most 1
ROLLCALL_LOG_FORMAT is "xml\ninjected": want text or json`
	if d := cmp.Diff(want, fmt.Sprint(err)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"ROLLCALL_ISDP_PASSWRD is none of rollcall's settings and has no effect; did you mean ROLLCALL_ISDP_PASSWORD?"}, warnings); d != "" {
		t.Error(d)
	}
}

// What polls no vendor does without its settings, whatever they hold.
func TestWithoutVendor(t *testing.T) {
	setEnv(t, map[string]string{
		"ROLLCALL_ISDP_URL": "nonsense", "ROLLCALL_ISDP_TYPES": "x", "ROLLCALL_ISDP_CA_FILE": "/missing",
		"ROLLCALL_ISDP_PASSWORD_FILE": "/missing", "ROLLCALL_POLL_INTERVAL": "1s", "ROLLCALL_TENANT_ID": "886",
	})
	s, _, err := loadSettings(withoutVendor)
	if err != nil {
		t.Fatal(err)
	}
	if s.PollInterval.value != time.Second || s.TenantID.value != 886 || s.DataDir.value != "./data" {
		t.Errorf("interval %v, tenant %d, data %q", s.PollInterval.value, s.TenantID.value, s.DataDir.value)
	}
	if !s.PollInterval.isSet() || s.DataDir.isSet() {
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
	if s := mustLoad(t, working(nil)); s.LogLevel.value != slog.LevelInfo || strings.Contains(s.Instance.value, "else") {
		t.Errorf("level %v, instance %q", s.LogLevel.value, s.Instance.value)
	}
}

func TestSecretFiles(t *testing.T) {
	secrets := map[string]func(*settings) secret{
		"ROLLCALL_ISDP_CLIENT_ID":     func(s *settings) secret { return s.ISDPClientID.value },
		"ROLLCALL_ISDP_CLIENT_SECRET": func(s *settings) secret { return s.ISDPClientSecret.value },
		"ROLLCALL_ISDP_USERNAME":      func(s *settings) secret { return s.ISDPUsername.value },
		"ROLLCALL_ISDP_PASSWORD":      func(s *settings) secret { return s.ISDPPassword.value },
		"ROLLCALL_NATS_URL":           func(s *settings) secret { return s.NATSURL.value },
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
			env := working(map[string]string{name: "canary", name + "_FILE": write(t, "secret", "canary")})
			told := unusable(t, env)
			if e := told[name+" and "+name+"_FILE"]; e == nil || len(told) != 1 || strings.Contains(e.Error(), "canary") {
				t.Errorf("told: %v", told)
			}
		})
		for what, path := range map[string]string{
			"missing": filepath.Join(t.TempDir(), "missing"), "directory": t.TempDir(), "empty": write(t, "secret", "\n"),
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
		told := unusable(t, working(map[string]string{"ROLLCALL_ISDP_PASSWORD": "", "ROLLCALL_ISDP_PASSWORD_FILE": path}))
		want := fmt.Sprintf("ROLLCALL_ISDP_PASSWORD_FILE is %q: want the path of a readable file (%v)", path, errors.Unwrap(err))
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
	return write(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		write(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
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
		write(t, "user.creds", "-----BEGIN NATS USER JWT-----\neyJ0.eyJ1.c2ln\n------END NATS USER JWT------\n\n"+
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
		"ROLLCALL_NATS_CREDS_FILE": creds, "ROLLCALL_NATS_CERT_FILE": cert, "ROLLCALL_NATS_KEY_FILE": key,
	}))
	if pool, err := s.vendorRoots()(); pool == nil || err != nil {
		t.Errorf("no extra CA: %v", err)
	}
	if s.NATSCAFile.value != cert || s.NATSCredsFile.value != creds || s.NATSCertFile.value != cert || s.NATSKeyFile.value != key {
		t.Error("paths are not kept")
	}
	if s = mustLoad(t, working(map[string]string{url: "nats", "ROLLCALL_NATS_NKEY_FILE": user})); s.NATSNKeyFile.value != user {
		t.Error("the NKey's path is not kept")
	}

	for what, c := range map[string]struct {
		env  map[string]string
		told string
	}{
		"missing CA":       {map[string]string{"ROLLCALL_NATS_CA_FILE": "/missing"}, "ROLLCALL_NATS_CA_FILE"},
		"CA without any":   {map[string]string{"ROLLCALL_NATS_CA_FILE": key}, "ROLLCALL_NATS_CA_FILE"},
		"creds are a seed": {map[string]string{"ROLLCALL_NATS_CREDS_FILE": user}, "ROLLCALL_NATS_CREDS_FILE"},
		"seed is a cert":   {map[string]string{"ROLLCALL_NATS_NKEY_FILE": cert}, "ROLLCALL_NATS_NKEY_FILE"},
		"account's seed":   {map[string]string{"ROLLCALL_NATS_NKEY_FILE": account}, "ROLLCALL_NATS_NKEY_FILE"},
		"missing cert":     {map[string]string{"ROLLCALL_NATS_CERT_FILE": "/missing", "ROLLCALL_NATS_KEY_FILE": key}, "ROLLCALL_NATS_CERT_FILE"},
		"cert alone":       {map[string]string{"ROLLCALL_NATS_CERT_FILE": cert}, "ROLLCALL_NATS_CERT_FILE and ROLLCALL_NATS_KEY_FILE"},
		"key alone":        {map[string]string{"ROLLCALL_NATS_KEY_FILE": key}, "ROLLCALL_NATS_CERT_FILE and ROLLCALL_NATS_KEY_FILE"},
		"another's key": {map[string]string{"ROLLCALL_NATS_CERT_FILE": cert, "ROLLCALL_NATS_KEY_FILE": otherKey},
			"ROLLCALL_NATS_CERT_FILE and ROLLCALL_NATS_KEY_FILE"},
		"two ways to sign in": {map[string]string{"ROLLCALL_NATS_CREDS_FILE": creds, "ROLLCALL_NATS_NKEY_FILE": user},
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
		"request longer than sweep": {map[string]string{"ROLLCALL_POLL_TIMEOUT": "5s"}, []string{"ROLLCALL_REQUEST_TIMEOUT"}},
		"replicas of one server":    {map[string]string{"ROLLCALL_NATS_REPLICAS": "3"}, []string{"ROLLCALL_NATS_REPLICAS"}},
		"creds for nobody":          {map[string]string{"ROLLCALL_NATS_CREDS_FILE": creds}, []string{"ROLLCALL_NATS_CREDS_FILE"}},
		"NKey for nobody":           {map[string]string{"ROLLCALL_NATS_NKEY_FILE": user}, []string{"ROLLCALL_NATS_NKEY_FILE"}},
		"TLS with nobody": {map[string]string{"ROLLCALL_NATS_CA_FILE": cert, "ROLLCALL_NATS_CERT_FILE": cert, "ROLLCALL_NATS_KEY_FILE": key},
			[]string{"ROLLCALL_NATS_CA_FILE", "ROLLCALL_NATS_CERT_FILE", "ROLLCALL_NATS_KEY_FILE"}},
		"board and ops": {map[string]string{"ROLLCALL_OPS_LISTEN": "127.0.0.1:8080"}, []string{"ROLLCALL_HTTP_LISTEN"}},
		"ops and NATS":  {map[string]string{"ROLLCALL_OPS_LISTEN": "127.0.0.1:4222"}, []string{"ROLLCALL_OPS_LISTEN"}},
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
		"equal timeouts":    {"ROLLCALL_POLL_TIMEOUT": "10s"},
		"replicas":          {"ROLLCALL_NATS_REPLICAS": "5", "ROLLCALL_NATS_URL": "nats"},
		"creds":             {"ROLLCALL_NATS_CREDS_FILE": creds, "ROLLCALL_NATS_URL_FILE": write(t, "url", "nats")},
		"any ports":         {"ROLLCALL_HTTP_LISTEN": "127.0.0.1:0", "ROLLCALL_OPS_LISTEN": "127.0.0.1:0"},
		"nothing embedded":  {"ROLLCALL_HTTP_LISTEN": "127.0.0.1:4222", "ROLLCALL_NATS_URL": "nats"},
		"off and not there": {"ROLLCALL_HTTP_LISTEN": "off"},
	} {
		t.Run(what, func(t *testing.T) { mustLoad(t, working(env)) })
	}
}

// Whatever fails, nothing that is secret shows in what is said of it.
func TestNoSecretIsTold(t *testing.T) {
	const canary = "canary"
	file := write(t, "file", canary+"-in-file")
	credentials := []string{"ROLLCALL_ISDP_CLIENT_ID", "ROLLCALL_ISDP_CLIENT_SECRET", "ROLLCALL_ISDP_USERNAME", "ROLLCALL_ISDP_PASSWORD"}

	// Every other setting is unusable.
	wrong := map[string]string{"ROLLCALL_DATA_DIR": "\t"}
	for _, name := range new(settings).names() {
		if !slices.Contains(credentials, name) && !strings.HasSuffix(name, "_FILE") && name != "ROLLCALL_DATA_DIR" {
			wrong[name] = "not / usable"
		}
	}
	for _, url := range []string{
		"https://user:canary@isdp.example.com", "https://canary@isdp.example.com", "https://isdp.example.com?password=canary",
		"https://isdp.example.com#canary", "http://user:canary@h:x", "https://user:canary", "user:canary@h", "isdp:canary",
		"https:///user:canary@h", "https://user:ca/canary@h", "https://user:%canary@h", "//user:canary@h", "user@canary", "https:user:canary@h",
		"https://user:p?canary@h", "https://h/user:canary@", "nats://h,nats://user:p,canary@h", "nats://canary@h:x", "ht tp://user:canary@h",
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

	// The secret itself in place of the path to it.
	for _, value := range []string{"canary", "canary/+=", "-----BEGIN\ncanary/\n", "/\ncanary"} {
		env := working(map[string]string{"ROLLCALL_NATS_URL_FILE": value})
		for _, name := range append(slices.Clone(credentials), "ROLLCALL_NATS_CREDS", "ROLLCALL_NATS_NKEY", "ROLLCALL_NATS_KEY") {
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
		"ROLLCALL_ISDP_CLIENT_ID": canary, "ROLLCALL_ISDP_CLIENT_SECRET": canary, "ROLLCALL_ISDP_USERNAME": canary,
		"ROLLCALL_ISDP_PASSWORD": "", "ROLLCALL_ISDP_PASSWORD_FILE": write(t, "password", canary),
		"ROLLCALL_NATS_URL": "nats://user:canary@h", "ROLLCALL_LOG_LEVEL": "debug",
	}))
	if s.ISDPPassword.value.reveal() != canary {
		t.Fatal("the secret itself is lost")
	}
	type holder struct{ hidden any }
	values := []any{s, *s, s.ISDPPassword, s.ISDPPassword.value, &s.ISDPPassword.value, s.NATSURL, holder{*s}, holder{s.NATSURL.value},
		[]secret{s.ISDPPassword.value}, map[string]secret{"x": s.ISDPPassword.value}}
	for i, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p", "%T", "%5.2v", "%!"} {
			if got := fmt.Sprintf(verb, v); strings.Contains(got, canary) || strings.Contains(got, "63616e617279") {
				t.Errorf("value %d, %s: %s", i, verb, got)
			}
		}
		if b, err := json.Marshal(v); err != nil || bytes.Contains(b, []byte(canary)) {
			t.Errorf("value %d: JSON: %s, %v", i, b, err)
		}
		for _, format := range []string{"text", "json"} {
			var b bytes.Buffer
			s.LogFormat.value = format
			newLogger(&b, s).Debug("settings", "value", v, slog.Any("group", slog.GroupValue(slog.Any("value", v))))
			if b.Len() == 0 || strings.Contains(b.String(), canary) {
				t.Errorf("value %d: %s log: %s", i, format, b.String())
			}
		}
	}
	if got := fmt.Sprintf("%v %d", s.ISDPPassword.value, s.ISDPPassword.value); got != "[redacted] [redacted]" {
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
		`ROLLCALL_QUIET_FIELDS names "agentSignInTimes", a field that the vendor does not document; did you mean agentSignInTime?`,
	}
	if d := cmp.Diff(want, warnings); d != "" {
		t.Error(d)
	}
}

func TestInVariables(t *testing.T) {
	s := mustLoad(t, working(map[string]string{"ROLLCALL_PAGE_SIZE": "49"}))
	other := errors.New("something else")
	err := s.inVariables(errors.Join(
		&setting.Error{Field: "PageSize", Value: "0x31", Want: "another"},
		fmt.Errorf("wrapped: %w", &setting.Error{Field: "Password", Value: "canary", Want: "a better one"}),
		&setting.Error{Field: "SweepTimeout", Want: "more"},
		&setting.Error{Field: "MaxRowBytes", Value: "1", Want: "more"},
		other,
	))
	want := "ROLLCALL_PAGE_SIZE is \"49\": want another\nROLLCALL_ISDP_PASSWORD: want a better one\nROLLCALL_POLL_TIMEOUT: want more\n" +
		"MaxRowBytes is \"1\": want more\nsomething else"
	if d := cmp.Diff(want, err.Error()); d != "" {
		t.Error(d)
	}
	if !errors.Is(err, other) {
		t.Error("what is none of the settings is lost")
	}
	if s.inVariables(nil) != nil {
		t.Error("an error out of nothing")
	}
}

func TestShortened(t *testing.T) {
	if got := shortened(strings.Repeat("中", 100)); got != strings.Repeat("中", 40)+"…" {
		t.Errorf("%q", got)
	}
}

// The document tells every setting in the words of the table. To bring it up to date:
//
//	go test ./cmd/rollcall -run TestSettingsDocument -update
func TestSettingsDocument(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "settings.md")
	document, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- settings -->\n", "<!-- /settings -->"
	before, rest, ok := strings.Cut(string(document), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no part between %s and %s", path, strings.TrimSpace(begin), end)
	}
	want := "\n" + settingsTable() + "\n"
	if *update {
		if err := os.WriteFile(path, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the document's settings are not the code's; run this test with -update:\n%s", d)
	}
}

// The README names some of the settings, each with the default that it has.
func TestREADMESettings(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	defaults := map[string]string{}
	cells := regexp.MustCompile("(?m)^\\| (.*?`ROLLCALL_.*?) \\| (.*?) \\|")
	for _, row := range cells.FindAllStringSubmatch(settingsTable(), -1) {
		name, _, _ := strings.Cut(row[1], " ")
		defaults[name] = row[2]
	}
	rows := cells.FindAllStringSubmatch(string(readme), -1)
	if len(rows) != 10 {
		t.Errorf("%d rows of settings, want ten", len(rows))
	}
	for _, row := range rows {
		for name := range strings.SplitSeq(row[1], ", ") {
			if defaults[name] != row[2] {
				t.Errorf("the README says that %s is by default %s, want %s", name, row[2], defaults[name])
			}
		}
	}
}

func TestSettingsTable(t *testing.T) {
	table := settingsTable()
	for _, name := range new(settings).names() {
		if !strings.HasSuffix(name, "_FILE") && !strings.Contains(table, "| `"+name+"`") {
			t.Errorf("%s is not in it", name)
		}
	}
	columns := regexp.MustCompile(`^\|( [^|]+ \|){4}$`)
	for line := range strings.Lines(table) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "|") && !columns.MatchString(line) {
			t.Errorf("not four columns: %s", line)
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
				for _, field := range regexp.MustCompile(`\{([A-Z][A-Za-z]*)\}`).FindAllStringSubmatch(text.Value, -1) {
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
