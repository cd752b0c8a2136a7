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
)

const (
	mostMembers   = 10 // of a cluster are asked how old they are
	membersWithin = 2 * time.Second

	seeServers = "see the servers' logs"
	upgrade    = "upgrade the NATS servers, all of the cluster"
)

// clientOptions are those of a connection that is made once, to look.
func clientOptions(timeout time.Duration) []nats.Option {
	quiet := func(*nats.Conn, *nats.Subscription, error) {} // what is denied is asked for
	return []nats.Option{nats.Name("rollcall check"), nats.NoReconnect(), nats.Timeout(timeout),
		nats.ErrorHandler(quiet)}
}

// open connects to the servers, once.
func (s *state) open(ctx context.Context, servers *natsdial.Servers) error {
	nc, err := servers.Connect(ctx, clientOptions(2*time.Second)...)
	if err != nil {
		return err
	}
	s.nc = nc
	s.js, err = jetstream.New(nc)
	return err
}

// connect connects to the NATS servers that the settings name.
func (s *state) connect(ctx context.Context) {
	start := time.Now()
	err := s.open(ctx, s.NATS)
	text := "no connection"
	switch {
	case err == nil:
		s.server(ctx, start)
		return
	case errors.Is(err, nats.ErrNoServers):
		s.fail("no server answers", "is one running, and is {URLs} right?")
		return
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired),
		errors.Is(err, nats.ErrAuthRevoked), errors.Is(err, nats.ErrAccountAuthExpired):
		text = "the server refuses these credentials"
	case errors.Is(err, nats.ErrSecureConnRequired), errors.Is(err, nats.ErrSecureConnWanted):
		s.fail("the server and this side do not agree on TLS: "+err.Error(),
			"use tls:// in {URLs} where the server wants TLS, and nats:// where it has none")
		return
	}
	s.fail(text+": "+err.Error(), cmp.Or(natsdial.Advice(err),
		"is {URLs} right, and if it is tls://, {CAFile}, {CertFile} and {KeyFile}?"))
}

// plainURL is a server's URL without user info, which may be a token as a whole.
func plainURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "a server"
	}
	return u.Scheme + "://" + u.Host
}

// server reports which server it is, and whether it and the others of its cluster are new enough.
func (s *state) server(ctx context.Context, start time.Time) {
	nc := s.nc
	version := nc.ConnectedServerVersion()
	text := fmt.Sprintf("%s, nats-server %s", plainURL(nc.ConnectedUrl()), version)
	if c := nc.ConnectedClusterName(); c != "" {
		text += fmt.Sprintf(", cluster %s of %d", c, len(nc.Servers()))
	}
	if err := publisher.CheckVersion(version); err != nil {
		s.fail(text+": too old, "+publisher.MinVersion+
			" or later is needed (atomic batch publishing)", upgrade)
		return
	}
	var small *publisher.SetupError
	if errors.As(publisher.CheckPayload(nc.MaxPayload()), &small) && s.NATS != nil {
		s.fail(text+": "+small.Err.Error(),
			"raise max_payload in the configuration of the NATS servers, all of the cluster")
		return
	}
	if old := s.oldMembers(ctx); len(old) > 0 {
		s.fail(text+"; others of its cluster are too old: "+list(old, 5)+"; "+
			publisher.MinVersion+" or later is needed", upgrade)
		return
	}
	text += " (" + dur(time.Since(start)) + ")"
	if _, err := nc.TLSConnectionState(); err == nil {
		text += ", TLS"
	}
	s.ok(text)
}

// oldMembers names the other servers of the cluster that are too old: rollcall may be connected to
// any of them next. Those that can't be reached from here are left out; whether they are there is
// another probe's matter.
func (s *state) oldMembers(ctx context.Context) (old []string) {
	ctx, cancel := context.WithTimeout(ctx, membersWithin)
	defer cancel()
	members := s.nc.DiscoveredServers()
	opts := append(clientOptions(time.Second), nats.IgnoreDiscoveredServers())
	for _, url := range members[:min(len(members), mostMembers)] {
		nc, err := s.NATS.ConnectTo(ctx, url, opts...)
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
		s.fail("JetStream is not enabled for this user's account",
			"enable it for the account (jetstream: enabled), or sign in to the account that has it")
		return
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, nats.ErrNoResponders):
		s.fail("JetStream is off",
			"start the server with -js, or put jetstream {store_dir: …} into its configuration")
		return
	default:
		s.fail("no answer: "+reason(err).Error(),
			"JetStream may be starting or have no leader: "+seeServers)
		return
	}
	s.storeLimit = max(0, a.Limits.MaxStore)
	text := "on; the account uses " + bytesText(int64(a.Store))
	var limits []string
	if s.storeLimit > 0 {
		limits = append(limits, "of at most "+bytesText(s.storeLimit))
	}
	if most := a.Limits.MaxStreams; most > 0 {
		limits = append(limits, count(most, "stream")+" at most")
	}
	if limits == nil {
		s.ok(text + ", without a limit of its own")
		return
	}
	s.ok(text + " " + strings.Join(limits, ", "))
}

// violated reports whether the last thing that the server said was that this subject is not
// permitted.
func (s *state) violated(subject string) bool {
	err := s.nc.LastError()
	return errors.Is(err, nats.ErrPermissionViolation) &&
		strings.Contains(err.Error(), `"`+subject+`"`)
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
	// What the server says to the message comes before what it says to this.
	err := s.nc.FlushWithContext(ctx)
	return err == nil && s.violated(subject), err
}

// permissions asks for every subject that rollcall publishes on.
func (s *state) permissions(ctx context.Context) {
	deaf, err := s.hearsNothing(ctx)
	var lack []string
	if err == nil {
		lack, err = s.lackingOf(ctx, publisher.Needs(s.tenant, s.Publisher.Manage))
	}
	if err != nil {
		s.fail("the connection was lost: "+reason(err).Error(), "")
		return
	}
	var not []string
	if deaf {
		not = append(not, "subscribe to _INBOX.>")
	}
	if len(lack) > 0 {
		not = append(not, "publish on "+strings.Join(lack, ", "))
	}
	if len(not) == 0 {
		s.ok("this user may publish on everything that rollcall publishes on")
		return
	}
	do := "let it, or use rollcall's own user ({CredsFile}, {NKeyFile} or the user in {URLs})"
	if s.nc.ConnectedServerName() == natsd.ServerName {
		do = "this looks like another rollcall's embedded server, whose clients may only read: " +
			"use a server of your own"
	}
	s.fail("this user may not "+strings.Join(not, ", nor "), do)
}

// hearsNothing reports whether the user may not subscribe where answers come.
func (s *state) hearsNothing(ctx context.Context) (bool, error) {
	inbox := nats.NewInbox()
	sub, err := s.nc.SubscribeSync(inbox)
	if err != nil {
		return false, err
	}
	defer func() { _ = sub.Unsubscribe() }() // where that fails, so does the connection
	err = s.nc.FlushWithContext(ctx)
	return s.violated(inbox), err
}

// lackingOf names those of the permissions that the user lacks, and keeps their subjects.
func (s *state) lackingOf(ctx context.Context, needs []publisher.Need) (lack []string, err error) {
	for _, n := range needs {
		denied, err := s.denies(ctx, n.Subject, n.Stream)
		if err != nil {
			return nil, err
		}
		if denied {
			s.denied = append(s.denied, n.Subject)
			lack = append(lack, n.Allow)
		}
	}
	return lack, nil
}

// mayAsk says whether the user may publish on a subject, and skips the probe where not.
func (s *state) mayAsk(subject string) bool {
	if slices.Contains(s.denied, subject) {
		s.skip("needs permission for " + subject)
		return false
	}
	return true
}
