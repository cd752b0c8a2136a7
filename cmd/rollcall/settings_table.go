package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/schemas"
)

// A group is a part of the README's settings.
type group struct {
	title string
	rows  []row
}

// A row is all there is to know of one variable. Every check, every error and the README come from
// it.
type row struct {
	name     string
	file     string // the variable that may name a file to read the value from instead
	std      string // the default as one would write it; empty: the zero value
	stdText  string // what the README says of the default where it is not a value
	required bool   // without default
	vendor   bool   // only what polls the vendor needs it
	about    string // meaning, and what breaks
	field    string // the Config field that it sets, as packages name it; see [setting.Text]

	// Made by bind.
	want   string
	load   func() []*setting.Error // reads the variable, or sets the default
	shown  func() string           // what may be told of what the variable holds; empty where it is not set
	target any                     // the *variable[T]
}

// bind makes a row the variable v's, which takes k.
func bind[T any](v *variable[T], k kind[T], r row) row {
	r.want, r.target = k.want, v
	r.shown = func() string { return k.shown(v.text()) }
	r.load = func() []*setting.Error {
		raw, given := v.text(), v.isSet()
		if !given {
			raw = r.std
		}
		if raw == "" {
			if r.required {
				return []*setting.Error{{Field: r.name, Want: plain(k.want) + "; it is not set and has no default"}}
			}
			return nil
		}
		if _, verbatim := any(v).(*variable[secret]); !verbatim {
			raw = strings.TrimSpace(raw)
		}
		value, err := k.parse(raw)
		if err != nil {
			return []*setting.Error{{Field: r.name, Value: k.shown(raw), Want: because(k.want, err)}}
		}
		v.value = value
		return nil
	}
	return r
}

// bindSecret is bind for a secret that may stand in a file: all of the file but one newline at its
// end.
func bindSecret(v *variable[secret], file *variable[string], k kind[secret], r row) row {
	r.file = r.name + "_FILE"
	r = bind(v, k, r)
	loadVariable := r.load
	r.load = func() []*setting.Error {
		if !file.isSet() {
			return loadVariable()
		}
		if v.isSet() {
			return []*setting.Error{{Field: r.name + " and " + r.file, Want: "only one of the two to be set"}}
		}
		path := strings.TrimSpace(file.text())
		unusable := func(want string) []*setting.Error {
			return []*setting.Error{{Field: r.file, Value: shortened(shownPath(path)), Want: want}}
		}
		text, err := readText(path)
		if err != nil {
			return unusable("the path of a readable file (" + err.Error() + ")")
		}
		if strings.TrimSpace(text) == "" {
			return unusable("the path of a file that holds something; it is empty")
		}
		if v.value, err = k.parse(text); err != nil {
			return unusable("a file that holds " + because(k.want, err))
		}
		file.value = path
		return nil
	}
	return r
}

// readText reads a small file without the end of its last line, and without the byte order mark
// that some editors put in front. Its error does not repeat the path.
func readText(path string) (string, error) {
	content, err := readFile(path)
	text := strings.TrimPrefix(string(content), "\ufeff")
	return strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r"), err
}

func because(want string, err error) string {
	if err == errUnusable {
		return plain(want)
	}
	return plain(want) + " (" + err.Error() + ")"
}

// plain takes the README's mark-up out of a text for the terminal.
func plain(text string) string { return strings.ReplaceAll(text, "`", "") }

// groups is the table of all settings.
func (s *settings) groups() []group {
	return []group{
		{"The vendor", []row{
			bind(&s.ISDPURL, vendorURL, row{name: "ROLLCALL_ISDP_URL", required: true, vendor: true, field: "BaseURL",
				about: "Where the ISDP+ OpenAPI is. The credentials are sent there and nowhere else: redirects are not followed."}),
			bindSecret(&s.ISDPClientID, &s.ISDPClientIDFile, credential("the client id of the OpenAPI account (`isdp-…-openapi`)"), row{
				name: "ROLLCALL_ISDP_CLIENT_ID", required: true, vendor: true, field: "ClientID",
				about: "The OpenAPI account. With `_FILE`, the path of a file that holds it; one newline at its end is not part of it. Never both. Files are read again when the vendor refuses what they held, so they can be replaced."}),
			bindSecret(&s.ISDPClientSecret, &s.ISDPClientSecretFile, credential("the client secret of the OpenAPI account"), row{
				name: "ROLLCALL_ISDP_CLIENT_SECRET", required: true, vendor: true, field: "ClientSecret",
				about: "Its secret. Wrong credentials are told once and tried again rarely, so that nobody locks the account."}),
			bindSecret(&s.ISDPUsername, &s.ISDPUsernameFile, credential("the application id"), row{
				name: "ROLLCALL_ISDP_USERNAME", required: true, vendor: true, field: "Username",
				about: "The application's id, the `username` of the token call."}),
			bindSecret(&s.ISDPPassword, &s.ISDPPasswordFile, credential("the application token"), row{
				name: "ROLLCALL_ISDP_PASSWORD", required: true, vendor: true, field: "Password",
				about: "The application's token, the `password` of the token call."}),
			bind(&s.ISDPTypes, businessTypes, row{name: "ROLLCALL_ISDP_TYPES", vendor: true, stdText: "all, in one listing", field: "Types",
				about: "The business types to poll: 0 safety, 1 quality, 2 patrol inspection, 10 video call. One listing each, and a sweep is complete when all are, so each type costs requests. Agents of other types stay as they are: taking a type out leaves its agents as last seen."}),
			bind(&s.ISDPCAFile, vendorCAs, row{name: "ROLLCALL_ISDP_CA_FILE", vendor: true, stdText: "the system's roots", field: "RootCAs",
				about: "CA certificates to trust for the ISDP+ domain beside the system's, for a gateway with a certificate of its own. Read again when connections are made, so it can be replaced."}),
			bind(&s.TenantID, number[int64](1, 0), row{name: "ROLLCALL_TENANT_ID", stdText: "from the token", field: "TenantID",
				about: "The tenant, where the token does not say. Where both do and differ, the start fails: the events would go under the wrong subjects."}),
		}},
		{"Polling", []row{
			bind(&s.PollInterval, anyDuration, row{name: "ROLLCALL_POLL_INTERVAL", std: "5s", field: "Interval",
				about: "From the start of one sweep to the start of the next. A sweep that takes longer delays the next: two never run beside each other. A change shorter than this can go unseen."}),
			bind(&s.PollTimeout, anyDuration, row{name: "ROLLCALL_POLL_TIMEOUT", stdText: "the larger of 60s and three times pages ÷ rate", field: "SweepTimeout",
				about: "For a whole sweep, all repetitions included. Below what the listing needs no sweep is ever complete: changes still come, removals never."}),
			bind(&s.RequestTimeout, anyDuration, row{name: "ROLLCALL_REQUEST_TIMEOUT", std: "10s", field: "RequestTimeout",
				about: "For one request and its answer. At most `ROLLCALL_POLL_TIMEOUT`, where that is set."}),
			bind(&s.PageSize, number(1, 50), row{name: "ROLLCALL_PAGE_SIZE", std: "50", field: "PageSize",
				about: "Agents a page. 50 is the vendor's most; fewer mean more requests for the same listing."}),
			bind(&s.Concurrency, number(1, 0), row{name: "ROLLCALL_CONCURRENCY", std: "4", field: "Concurrency",
				about: "Pages in flight at a time. More shortens a sweep only as far as `ROLLCALL_RATE_LIMIT` lets it, and each may hold a page in memory."}),
			bind(&s.RateLimit, aSecond, row{name: "ROLLCALL_RATE_LIMIT", std: "1", field: "RateLimit",
				about: "The most requests a second, all calls together, fractions allowed. The vendor publishes no limit for this call and documents 60 calls a minute for a sibling service: ask before you set more. A sweep takes at least pages ÷ rate: 10,000 agents at 1 a second are 200 s. Slows down by itself when the vendor says so (429, `Retry-After`, or refusals that begin after good answers)."}),
		}},
		{"What counts as a change", []row{
			bind(&s.RemoveAfter, number(1, 0), row{name: "ROLLCALL_REMOVE_AFTER", std: "2", field: "RemoveAfter",
				about: "Complete sweeps in a row that must miss an agent before it counts as removed. A listing that changes while it is read can skip an agent with every count still right: 1 takes such a skip for a removal."}),
			bind(&s.MaxMissing, share, row{name: "ROLLCALL_MAX_MISSING", std: "0.5", field: "MaxMissing",
				about: "The share of a listing's known agents (of the whole, and of each polled type) that may be missing together before removal is held back, where they are more than three or all of it; against a vendor that answers with half a listing. 1 turns the guard off."}),
			bind(&s.MissingHold, anyDuration, row{name: "ROLLCALL_MISSING_HOLD", std: "15m", field: "MissingHold",
				about: "How long so many agents must then stay missing before they are removed after all. Starts anew after a restart."}),
			bind(&s.QuietFields, fieldNames, row{name: "ROLLCALL_QUIET_FIELDS", std: strings.Join(schemas.DefaultQuiet, ","), field: "Quiet",
				about: "Fields whose change alone makes no event; they are still carried. A value replaces the whole list, so repeat what is to stay quiet: without `agentSignInTime` every online agent can make an event at every sweep."}),
			bind(&s.BufferEvents, number(1, 0), row{name: "ROLLCALL_BUFFER_EVENTS", std: "100000", field: "BufferEvents",
				about: "Events held in memory while NATS is away. Past it the oldest detail of an agent folds into its net effect, which is counted and logged; the end states are never lost."}),
		}},
		{"NATS and the log", []row{
			bindSecret(&s.NATSURL, &s.NATSURLFile, natsURLs, row{name: "ROLLCALL_NATS_URL", field: "URLs", stdText: "an embedded server",
				about: "The NATS servers, all of version 2.12.8 or later, with JetStream. For `watch` and `check`, none means the embedded server at `ROLLCALL_NATS_LISTEN`. With `_FILE`, the path of a file that holds them, which is read again whenever a connection is made."}),
			bind(&s.NATSListen, listenAddr, row{name: "ROLLCALL_NATS_LISTEN", std: "127.0.0.1:4222", field: "Listen",
				about: "Where the embedded server listens. Whoever reaches it may read every agent's name and account, and nothing else: no client of the network can write."}),
			bind(&s.DataDir, anyPath, row{name: "ROLLCALL_DATA_DIR", std: "./data", field: "DataDir",
				about: "The embedded server's store: the log and all that is known of revisions. One rollcall at a time; on a disk that stays, with room for `ROLLCALL_NATS_MAX_BYTES`."}),
			bind(&s.NATSCredsFile, natsCreds, row{name: "ROLLCALL_NATS_CREDS_FILE", field: "CredsFile", stdText: "none",
				about: "A user's JWT and seed, to sign in to `ROLLCALL_NATS_URL`. Read again at each connection, so it can be replaced."}),
			bind(&s.NATSNKeyFile, natsSeed, row{name: "ROLLCALL_NATS_NKEY_FILE", field: "NKeyFile", stdText: "none",
				about: "A user's seed, to sign in by NKey instead; not together with `ROLLCALL_NATS_CREDS_FILE`. Read again at each connection."}),
			bind(&s.NATSCAFile, natsCAs, row{name: "ROLLCALL_NATS_CA_FILE", field: "CAFile", stdText: "the system's roots",
				about: "The CA of the NATS servers' certificates, in place of the system's roots. Read again at each connection."}),
			bind(&s.NATSCertFile, natsCert, row{name: "ROLLCALL_NATS_CERT_FILE", field: "CertFile", stdText: "none",
				about: "A client certificate for the NATS servers; together with `ROLLCALL_NATS_KEY_FILE`."}),
			bind(&s.NATSKeyFile, natsKey, row{name: "ROLLCALL_NATS_KEY_FILE", field: "KeyFile", stdText: "none",
				about: "Its key. Both are read again at each connection."}),
			bind(&s.NATSReplicas, number(1, 5), row{name: "ROLLCALL_NATS_REPLICAS", std: "1", field: "Replicas",
				about: "Replicas of the stream and the bucket, where rollcall creates them. An even number bears no more failures than the odd one below it. The embedded server is a single one: 1."}),
			bind(&s.NATSManage, yesNo, row{name: "ROLLCALL_NATS_MANAGE", std: "true", field: "Manage",
				about: "Create the stream and the bucket where they are missing; `false`: only check them. Neither alters what is there."}),
			bind(&s.EventsMaxAge, wholeSeconds(time.Second), row{name: "ROLLCALL_EVENTS_MAX_AGE", std: "168h", field: "EventsMaxAge",
				about: "How long the log keeps an event. A consumer that stays away longer misses events, never states, which are kept for ever. Holds for events published from now on."}),
			bind(&s.NATSMaxBytes, size("a number of bytes such as `512MiB` or `1GiB` (KiB, MiB, GiB, TiB or none), at least `1MiB`", 1<<20), row{
				name: "ROLLCALL_NATS_MAX_BYTES", std: "1GiB", field: "MaxBytes",
				about: "The stream's size limit, set where rollcall creates it. It must be below what the account, the server and the disk can hold: a full stream refuses a commit cleanly, a full disk does not."}),
			bind(&s.LeaseTTL, wholeSeconds(2*time.Second), row{name: "ROLLCALL_LEASE_TTL", std: "10s", field: "LeaseTTL",
				about: "How long a dead replica holds its lease, and so how long nobody polls after it died. Shorter ones lapse when NATS elects a leader, which costs a take-over."}),
			bind(&s.Instance, replicaName, row{name: "ROLLCALL_INSTANCE", std: defaultInstance(), stdText: "host name and process", field: "Instance",
				about: "This replica's name in the lease, the watermark and the logs. No two replicas may have the same."}),
		}},
		{"Pages and logs", []row{
			bind(&s.HTTPListen, listenAddrOrOff, row{name: "ROLLCALL_HTTP_LISTEN", field: "HTTPListen", std: "127.0.0.1:8080",
				about: "`/healthz`, `/readyz`, `/metrics`, and at `/` the board, which shows names and accounts of people to whoever reaches it. On loopback it answers to `localhost` and loopback addresses only, and with `ROLLCALL_LOG_LEVEL=debug` has Go's profiles at `/debug/pprof/`."}),
			bind(&s.OpsListen, listenAddr, row{name: "ROLLCALL_OPS_LISTEN", field: "OpsListen", stdText: "none",
				about: "Where to serve `/healthz`, `/readyz`, `/metrics` and nothing else, for probes and scrapers from outside. They hold no secret, and no name or account of a person."}),
			bind(&s.LogLevel, logLevels, row{name: "ROLLCALL_LOG_LEVEL", field: "LogLevel", std: "info",
				about: "The least level that is logged."}),
			bind(&s.LogFormat, logFormats, row{name: "ROLLCALL_LOG_FORMAT", std: "text",
				about: "A line each, on standard error."}),
		}},
	}
}

// settingsTable is the README's part on the settings, in Markdown.
func settingsTable() string {
	var b strings.Builder
	for i, g := range new(settings).groups() {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "**%s**\n\n| variable | default | takes | meaning |\n| --- | --- | --- | --- |\n", g.title)
		for _, r := range g.rows {
			name := "`" + r.name + "`"
			if r.file != "" {
				name += " or `…_FILE`"
			}
			std := "`" + strings.ReplaceAll(r.std, ",", "`, `") + "`"
			switch {
			case r.stdText != "":
				std = r.stdText
			case r.required:
				std = "none, required"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", name, std, r.want, r.about)
		}
	}
	return b.String()
}

// nearest is the known name that a mistyped one most likely stands for, or empty.
func nearest(name string, known []string) string {
	words := func(s string) []string { return strings.Split(strings.TrimPrefix(s, envPrefix), "_") }
	best, least := "", 4 // further apart they are different names
	for _, k := range known {
		d := distance(name, k)
		missing := slices.ContainsFunc(words(name), func(w string) bool { return !slices.Contains(words(k), w) })
		if !missing { // some words left out or in another order
			d = min(d, 3)
		}
		if d < least && 2*d < len(k) {
			best, least = k, d
		}
	}
	return best
}

// distance counts the characters to insert, leave out or replace to make one name the other (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
