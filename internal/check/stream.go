package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

const (
	nearlyFull = 0.8 // of the stream's size limit

	// commitPatience is how long after the watermark is stale, and after the last commit, a leader
	// may still be about to commit.
	commitPatience = 15 * time.Second
)

// reader reads the stream and the bucket as a start does.
func (s *state) reader() *publisher.Reader {
	cfg := s.Publisher
	cfg.Tenant = max(s.tenant, 0)
	return publisher.NewReader(s.nc, cfg)
}

// stream looks at the stream.
func (s *state) stream(ctx context.Context) {
	if !s.mayAsk("$JS.API.STREAM.INFO." + schemas.Stream) {
		return
	}
	info, err := s.reader().Stream(ctx)
	setup, _ := errors.AsType[*publisher.SetupError](err)
	switch {
	case info == nil && (err == nil || setup != nil):
		s.stop()
		s.noStream(ctx)
		return
	case setup != nil:
		s.fail(setup.Err.Error(), "mend it (nats stream edit), or, if it is somebody else's, "+
			"remove or rename it, or use another account")
		return
	case err != nil:
		s.fail("no answer about "+schemas.Stream+": "+reason(err).Error(),
			"JetStream may be starting, or the stream has no leader: "+seeServers)
		return
	}
	c, st := info.Config, info.State
	text := fmt.Sprintf("%s fits; %s, %s of %s", schemas.Stream, count(st.Msgs, "message"),
		bytesText(int64(st.Bytes)), bytesText(c.MaxBytes))
	if float64(st.Bytes) > nearlyFull*float64(c.MaxBytes) {
		how := "nats stream edit " + schemas.Stream + " --max-bytes …"
		if s.NATS == nil { // the embedded server lets nobody edit it
			how = "docs/operations.md, Room for the stream"
		}
		s.warn(text+": nearly full", "a full stream takes no commits: raise its limit ("+how+
			"), or lower {EventsMaxAge}")
	} else {
		s.ok(text)
	}
	if s.NATS == nil {
		return // the embedded server: one replica, everything synced, no limit that matters
	}
	if s.overLimit(c.MaxBytes, c.Replicas) {
		s.warn(fmt.Sprintf("its limit, %s in each of %s, is above the account's %s",
			bytesText(c.MaxBytes), count(c.Replicas, "replica"), bytesText(s.storeLimit)),
			"a full account can tear a commit, a full stream refuses it: "+
				"lower the stream's limit, or raise the account's")
	}
	s.replicas(schemas.Stream, info)
	s.durable(c)
}

// overLimit says whether the account may store less than that.
func (s *state) overLimit(bytes int64, replicas int) bool {
	return s.storeLimit > 0 && bytes*int64(max(1, replicas)) > s.storeLimit
}

// noStream says what a start would make of it that the stream is missing.
func (s *state) noStream(ctx context.Context) {
	const missing = schemas.Stream + " does not exist"
	c := s.Publisher
	if !c.Manage {
		s.fail(missing+setting.Text(", and {Manage} is false"),
			"create it (nats stream add --config deploy/nats/agent-events.json), "+
				"or set {Manage}=true")
		return
	}
	if why, do := s.barred(schemas.Stream); why != "" {
		s.fail(missing+" and can't be created: "+why, do)
		return
	}
	if denied, err := s.denies(ctx, "$JS.API.STREAM.NAMES", ""); err != nil || denied {
		s.ok(missing + "; rollcall creates it")
		return
	}
	const taken = schemas.LogPrefix + ">"
	if name, err := s.js.StreamNameBySubject(ctx, taken); err == nil {
		s.fail(schemas.Stream+" can't be created: the stream "+name+" has "+taken+" already",
			"take the subject out of it, or use an account of rollcall's own")
		return
	}
	size := fmt.Sprintf("%s and at most %s", count(c.Replicas, "replica"), bytesText(c.MaxBytes))
	text := missing + "; rollcall creates it, with " + size
	switch servers := len(s.nc.Servers()); {
	case s.overLimit(c.MaxBytes, c.Replicas):
		s.fail(fmt.Sprintf("%s and can't be created, with %s: the account may store %s",
			missing, size, bytesText(s.storeLimit)),
			"lower {MaxBytes}, or raise the account's limit")
	case c.Replicas > servers:
		s.warn(fmt.Sprintf("%s; of the cluster %s known here", text, count(servers, "server")),
			"the cluster needs as many servers with JetStream as there are replicas")
	default:
		s.ok(text)
	}
}

// barred says why a start can't create a stream that is missing, and what to do; empty where
// nothing is known that would keep it from that.
func (s *state) barred(stream string) (why, do string) {
	create := "$JS.API.STREAM.CREATE." + stream
	switch n := s.Publisher.Replicas; {
	case slices.Contains(s.denied, create):
		return "this user may not publish on " + create, "let it, or create the stream " + stream +
			" from its file in deploy/nats (nats stream add --config …)"
	case n > 1 && s.nc.ConnectedClusterName() == "":
		return fmt.Sprintf("%d replicas need a cluster, and this server is in none", n),
			"set {Replicas}=1, or use a cluster"
	}
	return "", ""
}

// replicas looks at how many copies there are, and how they fare.
func (s *state) replicas(what string, info *jetstream.StreamInfo) {
	have, want := info.Config.Replicas, s.Publisher.Replicas
	if have != want {
		s.warn(fmt.Sprintf("%s has %s, and %s is %d",
			what, count(have, "replica"), setting.Text("{Replicas}"), want),
			fmt.Sprintf("rollcall never alters it: nats stream edit %s --replicas %d", what, want))
	}
	if info.Cluster == nil || have <= 1 {
		return
	}
	var away []string
	for _, r := range info.Cluster.Replicas {
		switch {
		case r.Offline:
			away = append(away, r.Name+" (offline)")
		case !r.Current:
			away = append(away, fmt.Sprintf("%s (behind by %d)", r.Name, r.Lag))
		}
	}
	switch {
	case info.Cluster.Leader == "":
		s.fail(what+" has no leader", "more than half of its servers must be up: see their logs")
	case len(away) > 0:
		s.warn(fmt.Sprintf("%s: of %d replicas these do not keep up: %s",
			what, have, list(away, 5)),
			"see those servers' logs")
	default:
		s.ok(fmt.Sprintf("%s: %d replicas up to date, leader %s", what, have, info.Cluster.Leader))
	}
}

// durable says what an acknowledgement of the stream means.
func (s *state) durable(c jetstream.StreamConfig) {
	switch {
	case c.Storage != jetstream.FileStorage:
		s.warn(schemas.Stream+" is kept in memory only",
			"a restart of the NATS server empties it: create it with file storage")
	case c.Replicas <= 1:
		s.say(OK, schemas.Stream+" is kept in files, on one server",
			"a power failure there can lose what sync_interval allows, two minutes unless set "+
				"(clients can't see it); sync_interval: always, or three replicas, if that "+
				"is too much")
	default:
		s.ok(schemas.Stream + " is kept in files")
	}
}

// bucket looks at where the leases are.
func (s *state) bucket(ctx context.Context) {
	if !s.mayAsk("$JS.API.STREAM.INFO." + publisher.BucketStream) {
		return
	}
	const name = "bucket " + schemas.Bucket
	info, err := s.reader().Bucket(ctx)
	setup, _ := errors.AsType[*publisher.SetupError](err)
	switch {
	case err == nil && info == nil:
		s.stop()
		if why, do := s.barred(publisher.BucketStream); why != "" {
			s.fail(name+" does not exist and can't be created: "+why, do)
			return
		}
		s.ok(name + " does not exist; rollcall creates it")
	case err == nil:
		s.ok(name + " fits")
		s.replicas(publisher.BucketStream, info)
	case setup != nil && info == nil:
		s.fail(name+setting.Text(" does not exist, and {Manage} is false"),
			"create it (nats stream add --config deploy/nats/kv-rollcall.json), "+
				"or set {Manage}=true")
	case setup != nil:
		s.fail(setup.Err.Error(), setup.Hint)
	default:
		s.fail("no answer about "+name+": "+reason(err).Error(),
			"JetStream may be starting, or the bucket has no leader: "+seeServers)
	}
}

// alarm looks at what lets NATS tell plain subscribers that every rollcall is gone. Nothing here is
// a failure: without it, all else works.
func (s *state) alarm(ctx context.Context) {
	const (
		name = schemas.AlarmStream
		then = ": without it NATS can't tell plain subscribers (agent.stale) when every rollcall " +
			"is gone; all else works"
	)
	lack, err := s.lackingOf(ctx, publisher.AlarmNeeds(s.tenant, s.Publisher.Manage))
	if err != nil {
		s.warn("not known, the connection was lost: "+reason(err).Error(), "")
		return
	}
	if len(lack) > 0 {
		s.warn("this user may not publish on "+strings.Join(lack, ", ")+then,
			"let it, as deploy/nats/accounts.conf does")
		return
	}
	stream, err := s.js.Stream(ctx, name)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound) && s.Publisher.Manage:
		if why, do := s.barred(name); why != "" {
			s.warn(name+" does not exist and can't be created: "+why, do)
			return
		}
		s.ok(name + " does not exist; rollcall creates it")
		return
	case errors.Is(err, jetstream.ErrStreamNotFound):
		s.warn(name+setting.Text(" does not exist, and {Manage} is false")+then,
			"create it (nats stream add --config deploy/nats/rollcall-alarm.json), "+
				"or set {Manage}=true")
		return
	case err != nil:
		s.warn("no answer about "+name+": "+reason(err).Error(),
			"JetStream may be starting, or the stream has no leader: "+seeServers)
		return
	}
	info := stream.CachedInfo()
	if bad := publisher.AlarmMisfits(info.Config); len(bad) > 0 {
		s.warn(name+" does not fit, and rollcall never alters it: "+strings.Join(bad, "; ")+then,
			"mend it (nats stream edit), or remove it")
		return
	}
	s.ok(name + " fits")
	s.replicas(name, info)
}

// mayRead says whether the tenant's messages in a stream can be read, and skips the probe where
// not.
func (s *state) mayRead(stream string) bool {
	if s.tenant == 0 {
		s.skip(setting.Text("needs the tenant: from the token, or from {TenantID}"))
		return false
	}
	return s.mayAsk("$JS.API.STREAM.MSG.GET." + stream)
}

// unread reports a message that can't be read.
func (s *state) unread(err error) {
	s.fail("it can't be read: "+reason(err).Error(), "the stream may have no leader: "+seeServers)
}

// forged reports a message that rollcall would not have written.
func (s *state) forged() {
	s.warn("what stands in its place is none",
		"somebody else writes to the stream; rollcall mends it at its next start")
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
	s.leader, s.unled = h.Instance, seq == 0
	if s.unled {
		s.ok(fmt.Sprintf("nobody polls tenant %d now", s.tenant))
		return
	}
	s.ok(fmt.Sprintf("%s polls tenant %d, since %s (%s)",
		h.Instance, s.tenant, at(h.Since), dur(time.Since(h.Since))))
}

// watermark says how fresh the stream is.
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
		s.forged()
		return
	}
	now := s.Now()
	who := "see the log of " + w.Instance + ", and the health below"
	if s.unled {
		who = "nobody polls: start rollcall, or see why it ended"
	}
	switch {
	case w.Sweep == 0:
		s.warn("no sweep has been complete yet", who)
	case now.After(w.TrustedUntil()):
		since := w.TrustedUntil()
		s.warn(fmt.Sprintf("stale since %s (%s): it shows the listing of %s",
			at(since), dur(now.Sub(since)), at(w.StartedAt)), who)
		// Before staleAfter, a leader whom the vendor does not answer may not have said so yet.
		if now.Sub(w.StaleAfter) > commitPatience && now.Sub(m.Time) > commitPatience {
			s.committed = m.Time
		}
	default:
		glanced := ""
		if w.GlancedAt.After(w.StartedAt) {
			glanced = ", glanced " + dur(now.Sub(w.GlancedAt)) + " ago"
		}
		s.ok(fmt.Sprintf("%s old%s: sweep %d, %s, %d online, by %s", dur(now.Sub(w.StartedAt)),
			glanced, w.Sweep, count(w.Agents, "agent"), w.Online, w.Instance))
	}
	if w.Missing > 0 || w.Rejected > 0 {
		s.warn(fmt.Sprintf("%d of the agents missing from the listing, %s rejected",
			w.Missing, count(w.Rejected, "row")),
			"missing agents are removed when they stay away; rejected ones keep their last state")
	}
}

// health reports the last health message, and a leader that can't commit.
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
		s.forged()
	case h.State == schemas.HealthOK:
		s.ok("ok since " + at(h.Since))
	default:
		text := fmt.Sprintf("%s (%s) since %s",
			clip(string(h.State)), clip(string(h.Reason)), at(h.Since))
		if h.Detail != "" {
			text += ": " + h.Detail
		}
		s.warn(text, s.healthHint(h.Reason))
	}
	// A leader says in the stream that it can't read the listing, or commits a watermark: one that
	// does neither can't commit.
	failing := h != nil && h.State == schemas.HealthFailing
	if s.committed.IsZero() || failing || s.leader == "" && !s.running {
		return
	}
	s.fail(fmt.Sprintf("%s polls tenant %d, and nothing has been committed since %s (%s)",
		cmp.Or(s.leader, "the rollcall that runs here"), s.tenant,
		at(s.committed), dur(s.Now().Sub(s.committed))),
		"its log and its /readyz name the error; see that the stream, its account and the "+
			"servers' disks have room; a nats-server whose disk was full writes again only "+
			"after a restart")
}

func (s *state) healthHint(r schemas.HealthReason) string {
	switch r {
	case schemas.Credentials:
		if !s.stopped["token"] && !s.stopped["listing"] {
			return "see token and listing above, which work now: a rollcall that runs takes that " +
				"up by itself within a minute, with the credentials that stand in files then; " +
				"those in variables are read at its start only"
		}
		fallthrough
	case schemas.Unreachable, schemas.Unusable:
		return "see token and listing above, which tried the same just now"
	case schemas.MissingMany:
		return "many agents are missing from the listing together: they are kept " +
			"until {MissingHold} is over; ask the vendor whether it is true"
	}
	return "the vendor's listings contradict themselves; if this lasts, ask the vendor"
}
