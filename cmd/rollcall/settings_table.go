package main

import (
	"cmp"
	"log/slog"
	"slices"
	"strings"

	"github.com/rollcall-events/rollcall/internal/natsd"
	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/schemas"
)

// A variable is all there is to know of one variable of the environment. Every error comes from it,
// and docs/settings.md is checked against it.
type variable struct {
	name     string
	field    string // the Config field that it sets, as packages name it; see [setting.Text]
	std      string // the default as one would write it; empty: the zero value
	takes    string // what would be right, as the end of a sentence
	required bool   // there is no default
	secret   bool   // taken as it stands; name + "_FILE" may name a file to read it from instead

	// parse sets the value. Its error is errUnusable where takes says all, or else is shown too.
	parse func(text string) error
	show  func(text string) string // what may be shown of an unusable value; nil: all but user info
}

// ofVendor reports whether only what polls the vendor needs the variable.
func (v variable) ofVendor() bool { return strings.HasPrefix(v.name, "ROLLCALL_ISDP_") }

// text is what the variable holds, or else the default.
func (v variable) text(env environment) string {
	text := cmp.Or(env[v.name].reveal(), v.std)
	if v.secret {
		return text // spaces may belong to it
	}
	return strings.TrimSpace(text)
}

// load reads the variable, or its file, and sets the value, or the default. Its error is a
// [*setting.Error].
func (v variable) load(env environment) error {
	file := v.name + "_FILE"
	if v.secret && env.isSet(file) {
		if env.isSet(v.name) {
			return &setting.Error{Field: v.name + " and " + file,
				Want: "only one of the two to be set"}
		}
		return v.loadFile(file, strings.TrimSpace(env[file].reveal()))
	}
	text := v.text(env)
	switch {
	case text == "" && v.required:
		return &setting.Error{Field: v.name,
			Want: plain(v.takes) + "; it is not set and has no default"}
	case text == "":
		return nil
	}
	if err := v.parse(text); err != nil {
		return v.unusable(text, err)
	}
	return nil
}

func (v variable) loadFile(variable, path string) error {
	unusable := func(want string) error {
		return &setting.Error{Field: variable, Value: shortened(shownPath(path)), Want: want}
	}
	text, err := readText(path)
	if err != nil {
		return unusable("the path of a readable file (" + err.Error() + ")")
	}
	if strings.TrimSpace(text) == "" {
		return unusable("the path of a file that holds something; it is empty")
	}
	if v.parse(text) != nil {
		return unusable("a file that holds " + plain(v.takes))
	}
	return nil
}

// inFile reports whether a file holds the value of one of the fields.
func (s *settings) inFile(fields ...string) bool {
	return slices.ContainsFunc(s.variables(), func(v variable) bool {
		return v.secret && slices.Contains(fields, v.field) && s.env.isSet(v.name+"_FILE")
	})
}

// reread reads the files anew that hold the values of these fields.
func (s *settings) reread(fields ...string) (*settings, error) {
	again := new(settings)
	for _, v := range again.variables() {
		if slices.Contains(fields, v.field) {
			if err := v.load(s.env); err != nil {
				return again, err
			}
		}
	}
	return again, nil
}

// unusable says that the variable can't hold text.
func (v variable) unusable(text string, err error) error {
	want := plain(v.takes)
	if err != nil && err != errUnusable {
		want += " (" + err.Error() + ")"
	}
	show := withoutUserInfo
	if v.show != nil {
		show = v.show
	}
	text = show(text)
	return &setting.Error{Field: v.name, Value: shortened(text), Want: want}
}

// plain takes the document's mark-up out of a text for the terminal.
func plain(text string) string { return strings.ReplaceAll(text, "`", "") }

const (
	aNumber   = "a whole number, at least 1"
	aDuration = "a duration such as `1.5s`, `2m` or `1h30m`, at least `1ms`"
	seconds   = "a duration of whole seconds such as `30s` or `12h`, at least "
	aListen   = "an address to listen on as `host:port`, such as `127.0.0.1:8080` or `:8080`"
	someCAs   = "the path of a readable file with CA certificates in PEM"
)

// variables is the table of all settings, in the order in which they are judged and reported.
func (s *settings) variables() []variable {
	return []variable{
		{name: "ROLLCALL_ISDP_URL", field: "BaseURL", required: true,
			takes: "the base URL of the ISDP+ domain, `https://…` without user info, query and " +
				"fragment; `http://` for loopback only",
			parse: vendorURL(&s.ISDPURL), show: shownURL},
		{name: "ROLLCALL_ISDP_CLIENT_ID", field: "ClientID", required: true, secret: true,
			takes: "the client id of the OpenAPI account (`isdp-…-openapi`)",
			parse: verbatim(&s.ISDPClientID), show: hidden},
		{name: "ROLLCALL_ISDP_CLIENT_SECRET", field: "ClientSecret", required: true, secret: true,
			takes: "the client secret of the OpenAPI account",
			parse: verbatim(&s.ISDPClientSecret), show: hidden},
		{name: "ROLLCALL_ISDP_USERNAME", field: "Username", required: true, secret: true,
			takes: "the application id", parse: verbatim(&s.ISDPUsername), show: hidden},
		{name: "ROLLCALL_ISDP_PASSWORD", field: "Password", required: true, secret: true,
			takes: "the application token", parse: verbatim(&s.ISDPPassword), show: hidden},
		{name: "ROLLCALL_ISDP_TYPES", field: "Types",
			takes: "different whole numbers, none below 0, separated by commas, such as `0,10`",
			parse: numbers(&s.ISDPTypes)},
		{name: "ROLLCALL_ISDP_CA_FILE", field: "RootCAs", takes: someCAs,
			parse: file(&s.ISDPCAFile, holdsCAs)},
		{name: "ROLLCALL_TENANT_ID", field: "TenantID", takes: aNumber, parse: number(&s.TenantID)},

		{name: "ROLLCALL_POLL_INTERVAL", field: "Interval", std: "5s",
			takes: aDuration, parse: duration(&s.PollInterval)},
		{name: "ROLLCALL_POLL_TIMEOUT", field: "SweepTimeout",
			takes: aDuration, parse: duration(&s.PollTimeout)},
		{name: "ROLLCALL_REQUEST_TIMEOUT", field: "RequestTimeout", std: "10s",
			takes: aDuration, parse: duration(&s.RequestTimeout)},
		{name: "ROLLCALL_PAGE_SIZE", field: "PageSize", std: "50",
			takes: "a whole number from 1 to 50", parse: number(&s.PageSize)},
		{name: "ROLLCALL_CONCURRENCY", field: "Concurrency", std: "4",
			takes: aNumber, parse: number(&s.Concurrency)},
		{name: "ROLLCALL_RATE_LIMIT", field: "RateLimit", std: "1",
			takes: "a number above 0", parse: fraction(&s.RateLimit)},
		{name: "ROLLCALL_GLANCES", field: "GlanceAfter", std: "auto", takes: "`auto` or `off`",
			parse: word(&s.Glances, map[string]bool{"auto": true, "off": false})},

		{name: "ROLLCALL_QUERY", field: "Query", std: "on", takes: "`on` or `off`",
			parse: word(&s.Query, map[string]bool{"on": true, "off": false})},

		{name: "ROLLCALL_REMOVE_AFTER", field: "RemoveAfter", std: "2",
			takes: aNumber, parse: number(&s.RemoveAfter)},
		{name: "ROLLCALL_MAX_MISSING", field: "MaxMissing", std: "0.5",
			takes: "a number above 0 and at most 1", parse: fraction(&s.MaxMissing)},
		{name: "ROLLCALL_MISSING_HOLD", field: "MissingHold", std: "15m",
			takes: aDuration, parse: duration(&s.MissingHold)},
		{name: "ROLLCALL_QUIET_FIELDS", field: "Quiet",
			std: strings.Join(schemas.DefaultQuiet, ","),
			takes: "different names of fields, separated by commas; `*` stands for all that " +
				"the vendor does not document, `none` alone for no field",
			parse: fieldNames(&s.QuietFields)},
		{name: "ROLLCALL_BUFFER_EVENTS", field: "BufferEvents", std: "100000",
			takes: aNumber, parse: number(&s.BufferEvents)},

		{name: "ROLLCALL_NATS_URL", field: "URLs", secret: true,
			takes: "`nats://`, `tls://`, `ws://` or `wss://` URLs of NATS servers, `host` or " +
				"`host:port`, separated by commas, WebSocket or not but not both",
			parse: natsURLs(&s.NATSURL), show: hidden},
		{name: "ROLLCALL_NATS_LISTEN", field: "Listen", std: natsd.DefaultListen,
			takes: aListen, parse: listen(&s.NATSListen)},
		{name: "ROLLCALL_DATA_DIR", field: "DataDir", std: "./data",
			takes: "a path", parse: anyPath(&s.DataDir)},
		{name: "ROLLCALL_NATS_CREDS_FILE", field: "CredsFile",
			takes: "the path of a readable `.creds` file",
			parse: file(&s.NATSCredsFile, holdsCreds), show: shownPath},
		{name: "ROLLCALL_NATS_NKEY_FILE", field: "NKeyFile",
			takes: "the path of a readable file with the seed of a user NKey (`SU…`)",
			parse: file(&s.NATSNKeyFile, holdsSeed), show: shownPath},
		{name: "ROLLCALL_NATS_CA_FILE", field: "CAFile", takes: someCAs,
			parse: file(&s.NATSCAFile, holdsCAs)},
		{name: "ROLLCALL_NATS_CERT_FILE", field: "CertFile",
			takes: "the path of a readable file with a certificate in PEM",
			parse: file(&s.NATSCertFile, nil)},
		{name: "ROLLCALL_NATS_KEY_FILE", field: "KeyFile",
			takes: "the path of a readable file with the certificate's key in PEM",
			parse: file(&s.NATSKeyFile, nil), show: shownPath},
		{name: "ROLLCALL_NATS_REPLICAS", field: "Replicas", std: "1",
			takes: "a whole number from 1 to 5", parse: number(&s.NATSReplicas)},
		{name: "ROLLCALL_NATS_MANAGE", field: "Manage", std: "true",
			takes: "`true` or `false`", parse: yesNo(&s.NATSManage)},
		{name: "ROLLCALL_EVENTS_MAX_AGE", field: "EventsMaxAge", std: "168h",
			takes: seconds + "`1s`", parse: duration(&s.EventsMaxAge)},
		{name: "ROLLCALL_NATS_MAX_BYTES", field: "MaxBytes", std: "1GiB",
			takes: "a number of bytes such as `512MiB` or `1GiB` (KiB, MiB, GiB, TiB or none), " +
				"at least `1MiB`",
			parse: size(&s.NATSMaxBytes)},
		{name: "ROLLCALL_LEASE_TTL", field: "LeaseTTL", std: "10s",
			takes: seconds + "`2s`", parse: duration(&s.LeaseTTL)},
		{name: "ROLLCALL_INSTANCE", field: "Instance", std: defaultInstance(),
			takes: "at most 128 printable characters without spaces", parse: anyText(&s.Instance)},

		{name: "ROLLCALL_HTTP_LISTEN", field: "HTTPListen", std: "127.0.0.1:8080",
			takes: aListen + ", or `off`", parse: listenOrOff(&s.HTTPListen)},
		{name: "ROLLCALL_OPS_LISTEN", field: "OpsListen",
			takes: aListen, parse: listen(&s.OpsListen)},
		{name: "ROLLCALL_LOG_LEVEL", field: "LogLevel", std: "info",
			takes: "`debug`, `info`, `warn` or `error`",
			parse: word(&s.LogLevel, map[string]slog.Level{
				"debug": slog.LevelDebug, "info": slog.LevelInfo,
				"warn": slog.LevelWarn, "error": slog.LevelError})},
		{name: "ROLLCALL_LOG_FORMAT", field: "LogFormat", std: "text", takes: "`text` or `json`",
			parse: word(&s.LogFormat, map[string]string{"text": "text", "json": "json"})},
	}
}

// names are those of all variables that rollcall reads.
func names() []string {
	var names []string
	for _, v := range new(settings).variables() {
		names = append(names, v.name)
		if v.secret {
			names = append(names, v.name+"_FILE")
		}
	}
	return names
}

// byField are the names of the variables by the fields that they set.
func byField() map[string]string {
	names := make(map[string]string)
	for _, v := range new(settings).variables() {
		names[v.field] = v.name
	}
	return names
}
