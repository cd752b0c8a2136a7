package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/natsd"
	"github.com/rollcall-events/rollcall/internal/natsdial"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

const (
	nearlyFull = 0.8 // of the log's size limit

	// commitPatience is how long after the watermark is stale, and after the last commit, a leader
	// may still be about to commit.
	commitPatience = 15 * time.Second
)

// open connects to the servers, once.
func (s *state) open(ctx context.Context, servers *natsdial.Servers) error {
	nc, err := servers.Connect(ctx, nats.Name("rollcall check"), nats.NoReconnect(), nats.Timeout(2*time.Second),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // what is denied is asked for
	if err != nil {
		return err
	}
	s.nc = nc
	s.js, err = jetstream.New(nc)
	return err
}

const (
	mostMembers   = 10 // of a cluster are asked how old they are
	membersWithin = 2 * time.Second
)

// oldMembers names the other servers of the cluster that are too old: rollcall may be connected to
// any of them next. Those that can't be reached from here are left out; whether they are there is
// another probe's matter.
func (s *state) oldMembers(ctx context.Context) (old []string) {
	ctx, cancel := context.WithTimeout(ctx, membersWithin)
	defer cancel()
	for i, url := range s.nc.DiscoveredServers() {
		if i == mostMembers {
			break
		}
		nc, err := s.NATS.ConnectTo(ctx, url, nats.Name("rollcall check"), nats.NoReconnect(), nats.Timeout(time.Second),
			nats.IgnoreDiscoveredServers())
		if err != nil {
			continue
		}
		if version := nc.ConnectedServerVersion(); publisher.CheckVersion(version) != nil {
			old = append(old, plainURL(nc.ConnectedUrl())+" (nats-server "+version+")")
		}
		nc.Close()
	}
	return old
}

// connect connects to the NATS servers that the settings name.
func (s *state) connect(ctx context.Context) {
	start := time.Now()
	err := s.open(ctx, s.NATS)
	switch {
	case err == nil:
	case errors.Is(err, nats.ErrNoServers):
		s.fail("no server answers", "is one running, and is ROLLCALL_NATS_URL right?")
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked), errors.Is(err, nats.ErrAccountAuthExpired):
		s.fail("the server refuses these credentials: "+err.Error(), "check ROLLCALL_NATS_CREDS_FILE, ROLLCALL_NATS_NKEY_FILE or the user in ROLLCALL_NATS_URL")
	case errors.Is(err, nats.ErrSecureConnRequired), errors.Is(err, nats.ErrSecureConnWanted):
		s.fail("the server and this side do not agree on TLS: "+err.Error(), "use tls:// in ROLLCALL_NATS_URL where the server wants TLS, and nats:// where it has none")
	default:
		do := natsdial.Advice(err)
		if do == "" {
			do = "is ROLLCALL_NATS_URL right, and if it is tls://, ROLLCALL_NATS_CA_FILE, ROLLCALL_NATS_CERT_FILE and ROLLCALL_NATS_KEY_FILE?"
		}
		s.fail("no connection: "+err.Error(), do)
	}
	if err != nil {
		return
	}
	s.server(ctx, start)
}

// plainURL is a server's URL without user info, which may be a token as a whole.
func plainURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "a server"
	}
	return u.Scheme + "://" + u.Host
}

// server tells which server it is, and whether it and the others of its cluster are new enough.
func (s *state) server(ctx context.Context, start time.Time) {
	nc := s.nc
	version := nc.ConnectedServerVersion()
	text := fmt.Sprintf("%s, nats-server %s", plainURL(nc.ConnectedUrl()), version)
	if c := nc.ConnectedClusterName(); c != "" {
		text += fmt.Sprintf(", cluster %s of %d", c, len(nc.Servers()))
	}
	if err := publisher.CheckVersion(version); err != nil {
		s.fail(text+": too old, "+publisher.MinVersion+" or later is needed (atomic batch publishing)", "upgrade the NATS servers, all of the cluster")
		return
	}
	if err := publisher.CheckPayload(nc.MaxPayload()); s.NATS != nil && err != nil {
		s.fail(text+": "+err.Error(), "raise max_payload in the configuration of the NATS servers, all of the cluster")
		return
	}
	if old := s.oldMembers(ctx); len(old) > 0 {
		s.fail(text+"; others of its cluster are too old: "+list(old, 5)+"; "+publisher.MinVersion+" or later is needed",
			"upgrade the NATS servers, all of the cluster")
		return
	}
	text += " (" + dur(time.Since(start)) + ")"
	if _, err := nc.TLSConnectionState(); err == nil {
		text += ", TLS"
	}
	s.ok(text)
}

// jetstream asks for the account's limits, which a server without JetStream does not have.
func (s *state) jetstream(ctx context.Context) {
	if denied, err := s.denies(ctx, "$JS.API.INFO", ""); err == nil && denied {
		s.ok("the account's limits are not known: this user may not ask for them ($JS.API.INFO)")
		return
	}
	a, err := s.js.AccountInfo(ctx)
	switch {
	case err == nil:
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		s.fail("JetStream is not enabled for this user's account", "enable it for the account (jetstream: enabled), or sign in to the account that has it")
		return
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, nats.ErrNoResponders):
		s.fail("JetStream is off", "start the server with -js, or put jetstream {store_dir: …} into its configuration")
		return
	default:
		s.fail("no answer: "+reason(err).Error(), "JetStream may be starting or have no leader: see the servers' logs")
		return
	}
	s.account = a
	used, limits := int64(a.Store), []string{}
	if most := a.Limits.MaxStore; most > 0 {
		limits = append(limits, "of at most "+bytesText(most))
	}
	if most := a.Limits.MaxStreams; most > 0 {
		limits = append(limits, count(most, "stream")+" at most")
	}
	text := strings.TrimSpace(fmt.Sprintf("on; the account uses %s %s", bytesText(used), strings.Join(limits, ", ")))
	if len(limits) == 0 {
		text += ", without a limit of its own"
	}
	s.ok(text)
}

// violated reports whether the last thing that the server said was that this subject is not
// permitted.
func (s *state) violated(subject string) bool {
	err := s.nc.LastError()
	return errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(err.Error(), `"`+subject+`"`)
}

// denies asks whether this user may publish on a subject, by publishing what the receiver refuses
// for what it says: a message for a stream of another name than the one that stores it, or else a
// request that is none.
func (s *state) denies(ctx context.Context, subject, stream string) (bool, error) {
	m := nats.NewMsg(subject)
	m.Reply = nats.NewInbox() // to nobody
	if stream != "" {
		m.Header.Set(jetstream.ExpectedStreamHeader, "rollcall-check-no-such-stream")
	} else {
		m.Data = []byte("rollcall check: not a request")
	}
	if err := s.nc.PublishMsg(m); err != nil {
		return false, err
	}
	err := s.nc.FlushWithContext(ctx) // what the server says to the message comes before what it says to this
	return err == nil && s.violated(subject), err
}

// permissions asks for every subject that rollcall publishes on.
func (s *state) permissions(ctx context.Context) {
	inbox := nats.NewInbox()
	sub, err := s.nc.SubscribeSync(inbox)
	if err == nil {
		err = s.nc.FlushWithContext(ctx)
	}
	if err != nil {
		s.fail("the connection was lost: "+reason(err).Error(), "")
		return
	}
	var lack []string
	if s.violated(inbox) {
		lack = append(lack, "subscribe to _INBOX.>")
	}
	_ = sub.Unsubscribe() // where that fails, so does what follows
	for _, n := range publisher.Needs(s.tenant, s.Publisher.Manage) {
		denied, err := s.denies(ctx, n.Subject, n.Stream)
		if err != nil {
			s.fail("the connection was lost: "+reason(err).Error(), "")
			return
		}
		if denied {
			s.denied = append(s.denied, n)
			lack = append(lack, n.Allow)
		}
	}
	if len(lack) > 0 {
		do := "let it, or use rollcall's own user (ROLLCALL_NATS_CREDS_FILE, ROLLCALL_NATS_NKEY_FILE or the user in ROLLCALL_NATS_URL)"
		if s.nc.ConnectedServerName() == natsd.ServerName {
			do = "this looks like another rollcall's embedded server, whose clients may only read: use a server of your own"
		}
		s.fail("this user may not publish on "+strings.Join(lack, ", "), do)
		return
	}
	s.ok("this user may publish on everything that rollcall publishes on")
}

// mayAsk says whether the user may ask for a stream, and skips the probe where not.
func (s *state) mayAsk(subject string) bool {
	if slices.ContainsFunc(s.denied, func(n publisher.Need) bool { return n.Subject == subject }) {
		s.skip("needs permission for " + subject)
		return false
	}
	return true
}

// stream looks at the log.
func (s *state) stream(ctx context.Context) {
	if !s.mayAsk("$JS.API.STREAM.INFO." + schemas.Stream) {
		return
	}
	info, err := s.reader().Stream(ctx)
	var setup *publisher.SetupError
	switch {
	case info == nil && (err == nil || errors.As(err, &setup)):
		s.noStream(ctx)
		return
	case errors.As(err, &setup):
		s.fail(setup.Err.Error(),
			"mend it (nats stream edit), or, if it is somebody else's, remove or rename it, or use another account")
		return
	case err != nil:
		s.fail("no answer about "+schemas.Stream+": "+reason(err).Error(), "JetStream may be starting, or the stream has no leader: see the servers' logs")
		return
	}
	c, st := info.Config, info.State
	text := fmt.Sprintf("%s fits; %s, %s of %s", schemas.Stream, count(st.Msgs, "message"), bytesText(int64(st.Bytes)), bytesText(c.MaxBytes))
	if float64(st.Bytes) > nearlyFull*float64(c.MaxBytes) {
		s.warn(text+": nearly full", "a full log takes no commits: raise its limit (nats stream edit "+schemas.Stream+" --max-bytes …), or lower ROLLCALL_EVENTS_MAX_AGE")
	} else {
		s.ok(text)
	}
	if s.NATS == nil {
		return // the embedded server: one replica, everything synced, no limit that matters
	}
	if most := s.storeLimit(); most > 0 && c.MaxBytes*int64(max(1, c.Replicas)) > most {
		s.warn(fmt.Sprintf("its limit, %s in each of %s, is above the account's %s", bytesText(c.MaxBytes), count(c.Replicas, "replica"), bytesText(most)),
			"a full account can tear a commit, a full stream refuses it: lower the stream's limit, or raise the account's")
	}
	s.replicas(schemas.Stream, c, info.Cluster)
	s.durable(c)
}

// storeLimit is how many bytes the account may store; 0: any number, or not known.
func (s *state) storeLimit() int64 {
	if s.account == nil {
		return 0
	}
	return max(0, s.account.Limits.MaxStore)
}

// noStream says what a start would make of it that the log is missing.
func (s *state) noStream(ctx context.Context) {
	s.stop()
	c := s.Publisher
	if !c.Manage {
		s.fail(schemas.Stream+" does not exist, and ROLLCALL_NATS_MANAGE is false",
			"create it (nats stream add --config deploy/nats/agent-events.json), or set ROLLCALL_NATS_MANAGE=true")
		return
	}
	if denied, err := s.denies(ctx, "$JS.API.STREAM.NAMES", ""); err != nil || denied {
		s.ok(schemas.Stream + " does not exist; rollcall creates it")
		return
	}
	if name, err := s.js.StreamNameBySubject(ctx, schemas.LogPrefix+">"); err == nil {
		s.fail(fmt.Sprintf("%s can't be created: the stream %s has %s> already", schemas.Stream, name, schemas.LogPrefix),
			"take the subject out of it, or use an account of rollcall's own")
		return
	}
	text := fmt.Sprintf("%s does not exist; rollcall creates it, with %s and at most %s", schemas.Stream, count(c.Replicas, "replica"), bytesText(c.MaxBytes))
	servers := len(s.nc.Servers())
	switch most := s.storeLimit(); {
	case c.Replicas > 1 && s.nc.ConnectedClusterName() == "":
		s.fail(text+": refused, since this server is in no cluster", "set ROLLCALL_NATS_REPLICAS=1, or use a cluster")
	case most > 0 && c.MaxBytes*int64(c.Replicas) > most:
		s.fail(text+": refused, since the account may store "+bytesText(most), "lower ROLLCALL_NATS_MAX_BYTES, or raise the account's limit")
	case c.Replicas > servers:
		s.warn(fmt.Sprintf("%s; of the cluster %s known here", text, count(servers, "server")), "the cluster needs as many servers with JetStream as there are replicas")
	default:
		s.ok(text)
	}
}

// replicas looks at how many copies there are, and how they fare.
func (s *state) replicas(what string, c jetstream.StreamConfig, cluster *jetstream.ClusterInfo) {
	if want := s.Publisher.Replicas; c.Replicas != want {
		s.warn(fmt.Sprintf("%s has %s, and ROLLCALL_NATS_REPLICAS is %d", what, count(c.Replicas, "replica"), want),
			"rollcall never alters it: nats stream edit "+what+" --replicas "+fmt.Sprint(want))
	}
	if cluster == nil || c.Replicas <= 1 {
		return
	}
	var away []string
	for _, r := range cluster.Replicas {
		switch {
		case r.Offline:
			away = append(away, r.Name+" (offline)")
		case !r.Current:
			away = append(away, fmt.Sprintf("%s (behind by %d)", r.Name, r.Lag))
		}
	}
	switch {
	case cluster.Leader == "":
		s.fail(what+" has no leader", "more than half of its servers must be up: see their logs")
	case len(away) > 0:
		s.warn(fmt.Sprintf("%s: of %d replicas these do not keep up: %s", what, c.Replicas, list(away, 5)), "see those servers' logs")
	default:
		s.ok(fmt.Sprintf("%s: %d replicas up to date, leader %s", what, c.Replicas, cluster.Leader))
	}
}

// durable says what an acknowledgement of the log means.
func (s *state) durable(c jetstream.StreamConfig) {
	switch {
	case c.Storage != jetstream.FileStorage:
		s.warn(schemas.Stream+" is kept in memory only", "a restart of the NATS server empties it: create it with file storage")
	case c.Replicas <= 1:
		s.say(OK, schemas.Stream+" is kept in files, on one server",
			"a power failure there can lose what sync_interval allows, two minutes unless set (clients can't see it); "+
				"sync_interval: always, or three replicas, if that is too much")
	default:
		s.ok(schemas.Stream + " is kept in files")
	}
}

// bucket looks at where the leases are.
func (s *state) bucket(ctx context.Context) {
	if !s.mayAsk("$JS.API.STREAM.INFO." + publisher.BucketStream) {
		return
	}
	info, err := s.reader().Bucket(ctx)
	var setup *publisher.SetupError
	switch {
	case err == nil && info == nil:
		s.stop()
		s.ok("bucket " + schemas.Bucket + " does not exist; rollcall creates it")
		return
	case errors.As(err, &setup) && info == nil:
		s.fail("bucket "+schemas.Bucket+" does not exist, and ROLLCALL_NATS_MANAGE is false",
			"create it (nats stream add --config deploy/nats/kv-rollcall.json), or set ROLLCALL_NATS_MANAGE=true")
		return
	case errors.As(err, &setup):
		s.fail(setup.Err.Error(), setup.Hint)
		return
	case err != nil:
		s.fail("no answer about bucket "+schemas.Bucket+": "+reason(err).Error(), "JetStream may be starting, or the bucket has no leader: see the servers' logs")
		return
	}
	s.ok("bucket " + schemas.Bucket + " fits")
	s.replicas(publisher.BucketStream, info.Config, info.Cluster)
}

// reader reads the stream and the bucket as a start does.
func (s *state) reader() *publisher.Reader {
	cfg := s.Publisher
	cfg.Tenant = max(s.tenant, 0)
	return publisher.NewReader(s.nc, cfg)
}

// mayRead says whether the tenant's messages in a stream can be read, and skips the probe where
// not.
func (s *state) mayRead(stream string) bool {
	if s.tenant == 0 {
		s.skip("needs the tenant: from the token, or from ROLLCALL_TENANT_ID")
		return false
	}
	return s.mayAsk("$JS.API.STREAM.MSG.GET." + stream)
}

// unread tells that a message can't be read.
func (s *state) unread(err error) {
	s.fail("it can't be read: "+reason(err).Error(), "the stream may have no leader: see the servers' logs")
}

// leadership is what is known of who leads.
type leadership struct {
	known bool
	by    string // empty: nobody
}

// lease says who polls the tenant.
func (s *state) lease(ctx context.Context) {
	if !s.mayRead(publisher.BucketStream) {
		return
	}
	h, seq, err := s.reader().Lease(ctx)
	if err != nil {
		s.unread(err)
		return
	}
	s.lead = leadership{true, h.Instance}
	if seq == 0 {
		s.ok(fmt.Sprintf("nobody polls tenant %d now", s.tenant))
		return
	}
	s.ok(fmt.Sprintf("%s polls tenant %d, since %s (%s)", h.Instance, s.tenant, at(h.Since), dur(time.Since(h.Since))))
}

// watermark says how fresh the log is.
func (s *state) watermark(ctx context.Context) {
	if !s.mayRead(schemas.Stream) {
		return
	}
	w, m, err := s.reader().Watermark(ctx)
	switch {
	case err != nil:
		s.unread(err)
		return
	case m == nil:
		s.ok(fmt.Sprintf("none: nothing has been published for tenant %d", s.tenant))
		return
	case w == nil:
		s.warn("what stands in its place is none", "somebody else writes to the log; rollcall mends it at its next start")
		return
	}
	now := s.now()
	who := "see the log of " + w.Instance + ", and the health below"
	if s.lead.known && s.lead.by == "" {
		who = "nobody polls: start rollcall, or see why it ended"
	}
	switch {
	case w.Sweep == 0:
		s.warn("no sweep has been complete yet", who)
	case now.After(w.StaleAfter):
		s.warn(fmt.Sprintf("stale since %s (%s): it shows the listing of %s", at(w.StaleAfter), dur(now.Sub(w.StaleAfter)), at(w.StartedAt)), who)
		if now.Sub(w.StaleAfter) > commitPatience && now.Sub(m.Time) > commitPatience {
			s.committed = m.Time
		}
	default:
		s.ok(fmt.Sprintf("%s old: sweep %d, %s, %d online, by %s", dur(now.Sub(w.StartedAt)), w.Sweep, count(w.Agents, "agent"), w.Online, w.Instance))
	}
	if w.Missing > 0 || w.Rejected > 0 {
		s.warn(fmt.Sprintf("%d of the agents missing from the listing, %s rejected", w.Missing, count(w.Rejected, "row")), "missing agents are removed when they stay away; rejected ones keep their last state")
	}
}

// health tells what the last health message says.
func (s *state) health(ctx context.Context) {
	if !s.mayRead(schemas.Stream) {
		return
	}
	h, m, err := s.reader().Health(ctx)
	switch {
	case err != nil:
		s.unread(err)
		return
	case m == nil:
		s.ok("none yet")
	case h == nil:
		s.warn("what stands in its place is none", "somebody else writes to the log; rollcall mends it at its next start")
	case h.State == schemas.HealthOK:
		s.ok("ok since " + at(h.Since))
	default:
		text := fmt.Sprintf("%s (%s) since %s", clip(string(h.State)), clip(string(h.Reason)), at(h.Since))
		if h.Detail != "" {
			text += ": " + h.Detail
		}
		do := healthHint(h.Reason)
		if h.Reason == schemas.Credentials && !s.stopped["token"] && !s.stopped["listing"] {
			do = "see token and listing above, which work now: a rollcall that runs takes that up by itself within a minute, with the " +
				"credentials that stand in files then; those in variables are read at its start only"
		}
		s.warn(text, do)
	}
	// A leader says in the stream that it can't read the listing, or commits a watermark: one that
	// does neither can't commit.
	if !s.committed.IsZero() && (h == nil || h.State != schemas.HealthFailing) && (s.lead.by != "" || s.running) {
		who := cmp.Or(s.lead.by, "the rollcall that runs here")
		s.fail(fmt.Sprintf("%s polls tenant %d, and nothing has been committed since %s (%s)", who, s.tenant, at(s.committed), dur(s.now().Sub(s.committed))),
			"its log and its /readyz name the error; see that the stream, its account and the servers' disks have room; "+
				"a nats-server whose disk was full writes again only after a restart")
	}
}

func healthHint(r schemas.HealthReason) string {
	switch r {
	case schemas.Unreachable, schemas.Credentials, schemas.Unusable:
		return "see token and listing above, which tried the same just now"
	case schemas.MissingMany:
		return "many agents are missing from the listing together: they are kept until ROLLCALL_MISSING_HOLD is over; ask the vendor whether it is true"
	}
	return "the vendor's listings contradict themselves; if this lasts, ask the vendor"
}
