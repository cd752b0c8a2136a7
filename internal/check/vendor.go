package check

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/poller/isdp"
)

const (
	soonExpired = 14 * 24 * time.Hour // a certificate that has less left is reported
	slowToken   = 2 * time.Minute     // a token with less life is renewed all the time
)

// A trip is what the token call met on its way to the vendor. Where there is a proxy, dns and tcp
// are about the proxy.
type trip struct {
	mu            sync.Mutex // several addresses may be dialed side by side
	dns, tcp, tls leg
	addrs         []string            // what dns found
	handshakes    int                 // begun; the first is the proxy's, where that is an https one
	state         tls.ConnectionState // after the last of them
	answered      bool                // the first byte of an answer has come

	// What came of the call.
	seen isdp.TokenSeen
	err  error
}

// A leg is one part of a trip.
type leg struct {
	began time.Time // zero: not begun
	took  time.Duration
	ended bool
	err   error
}

func (l *leg) begin() { *l = leg{began: time.Now()} }

func (l *leg) end(err error) { l.took, l.ended, l.err = time.Since(l.began), true, err }

func (l *leg) done() bool { return l.ended && l.err == nil }

// reason is why a leg is not done.
func (l *leg) reason() error {
	if !l.ended {
		return errNoAnswer
	}
	return reason(l.err)
}

var errNoAnswer = errors.New("no answer in time")

// reason is an error without what its reader knows already.
func reason(err error) error {
	if op := new(net.OpError); errors.As(err, &op) && op.Err != nil {
		return reason(op.Err)
	}
	if dns := new(net.DNSError); errors.As(err, &dns) {
		return errors.New(dns.Err)
	}
	timeout, ok := errors.AsType[net.Error](err)
	switch {
	// The client cancels what it has begun when the time is over.
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled),
		ok && timeout.Timeout():
		return errNoAnswer
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("connection refused")
	}
	return err
}

// trace returns hooks that write the trip down. They may be called after the call has returned.
func (t *trip) trace() *httptrace.ClientTrace {
	locked := func(do func()) {
		t.mu.Lock()
		defer t.mu.Unlock()
		do()
	}
	return &httptrace.ClientTrace{
		DNSStart: func(httptrace.DNSStartInfo) { locked(t.dns.begin) },
		DNSDone: func(info httptrace.DNSDoneInfo) {
			locked(func() {
				t.dns.end(info.Err)
				for _, a := range info.Addrs {
					t.addrs = append(t.addrs, a.String())
				}
			})
		},
		ConnectStart: func(string, string) {
			locked(func() {
				if t.tcp.began.IsZero() {
					t.tcp.begin()
				}
			})
		},
		ConnectDone: func(_, _ string, err error) {
			locked(func() {
				if !t.tcp.done() { // one address that answers is enough
					t.tcp.end(err)
				}
			})
		},
		TLSHandshakeStart: func() {
			locked(func() {
				t.tls.begin()
				t.handshakes++
			})
		},
		TLSHandshakeDone: func(state tls.ConnectionState, err error) {
			locked(func() {
				t.tls.end(err)
				t.state = state
			})
		},
		GotFirstResponseByte: func() { locked(func() { t.answered = true }) },
	}
}

// token makes one token call, and reports each part of its way.
func (s *state) token(ctx context.Context) {
	c := s.Vendor
	c.Logger = nil
	c.RateLimit = max(c.RateLimit, 2) // a handful of calls: no need to wait long between them
	client, err := isdp.New(c)
	if err != nil {
		s.fail(err.Error(), "")
		return
	}
	s.client = client
	t := &trip{}
	t.seen, t.err = client.ProbeToken(httptrace.WithClientTrace(ctx, t.trace()))
	t.mu.Lock()
	defer t.mu.Unlock()
	last := ""
	for _, part := range []struct {
		name   string
		report func(*trip)
	}{{"dns", s.dns}, {"tcp", s.tcp}, {"tls", s.tls}, {"token", s.credentials}} {
		s.name = part.name
		if s.stopped[last] {
			s.skip("needs " + last)
		} else {
			part.report(t)
		}
		last = part.name
	}
}

// base is the vendor's URL.
func (s *state) base() *url.URL {
	u, err := url.Parse(s.Vendor.BaseURL)
	if err != nil {
		return &url.URL{} // the settings have been judged already
	}
	return u
}

// target is what the call connects to: the vendor, or the proxy. whose and where say so in words.
func (s *state) target() (u *url.URL, whose, where string) {
	if s.Proxy != nil {
		return s.Proxy, "the proxy ", "HTTPS_PROXY"
	}
	return s.base(), "", "{BaseURL}"
}

func portOf(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "http":
		return "80"
	case strings.HasPrefix(u.Scheme, "socks"):
		return "1080"
	}
	return "443"
}

// dns reports the lookup of the vendor's domain, or of the proxy's: then the proxy looks up the
// vendor's.
func (s *state) dns(t *trip) {
	u, whose, where := s.target()
	host := u.Hostname()
	if s.Proxy != nil {
		s.warn("connections to the vendor go through the proxy "+s.Proxy.Host,
			"HTTPS_PROXY says so; add the domain to NO_PROXY if they should not")
	}
	_, notIP := netip.ParseAddr(host)
	var dns *net.DNSError
	switch {
	case t.dns.done():
		slices.Sort(t.addrs)
		s.ok(fmt.Sprintf("%s%s is %s (%s)", whose, host, list(t.addrs, 3), dur(t.dns.took)))
	case notIP == nil:
		s.ok(whose + host + " is an address: nothing to look up")
	case t.dns.began.IsZero():
		s.trouble("", t.err)
	case errors.As(t.dns.err, &dns) && dns.IsNotFound:
		s.fail(whose+host+": there is no such domain", "is the domain in "+where+" right?")
	default:
		s.fail(fmt.Sprintf("%s%s could not be looked up: %v", whose, host, t.dns.reason()),
			"does DNS work on this machine?")
	}
}

// tcp reports the connection to the vendor, or to the proxy.
func (s *state) tcp(t *trip) {
	u, _, where := s.target()
	addr := net.JoinHostPort(u.Hostname(), portOf(u))
	switch {
	case t.tcp.done():
		s.ok(fmt.Sprintf("%s accepts connections (%s)", addr, dur(t.tcp.took)))
	case errors.Is(t.tcp.err, syscall.ECONNREFUSED):
		s.fail("no connection to "+addr+": connection refused",
			"nothing listens there: are domain and port of "+where+" right?")
	default:
		s.fail(fmt.Sprintf("no connection to %s: %v", addr, t.tcp.reason()),
			"is a firewall in the way, or is the domain in "+where+" wrong?")
	}
}

// tls reports the handshake with the vendor, and its certificate.
func (s *state) tls(t *trip) {
	base := s.base()
	if base.Scheme == "http" {
		s.ok("none: plain http, towards this machine only")
		return
	}
	// With TLS 1.3 a server demands a client certificate only after the handshake.
	remote := new(net.OpError)
	demands := !t.answered && errors.As(t.err, &remote) && remote.Op == "remote error"
	ours := t.handshakes > 0
	if s.Proxy != nil && s.Proxy.Scheme == "https" {
		ours = t.handshakes > 1
	}
	switch {
	case t.tls.done() && ours && !demands:
		s.certificate(&t.state)
	case ours && t.tls.reason() == errNoAnswer:
		s.fail("no TLS: no answer in time", "does something in between meddle with it?")
	default:
		s.noTLS(t, base)
	}
}

// certificate reports a certificate that is trusted.
func (s *state) certificate(state *tls.ConnectionState) {
	cert := state.PeerCertificates[0]
	left := time.Until(cert.NotAfter)
	text := fmt.Sprintf("%s, certificate for %s from %s, good for %s",
		tls.VersionName(state.Version), list(names(cert), 3), issuer(cert), dur(left))
	if left < soonExpired {
		s.warn(text, "have it renewed before "+at(cert.NotAfter)+": rollcall stops polling then")
		return
	}
	s.ok(text)
}

// noTLS reports why TLS failed, or the proxy did not let it begin.
func (s *state) noTLS(t *trip, base *url.URL) {
	var (
		record    tls.RecordHeaderError
		verify    *tls.CertificateVerificationError
		authority x509.UnknownAuthorityError
		wrongHost x509.HostnameError
		invalid   x509.CertificateInvalidError
	)
	err := cmp.Or(t.tls.err, t.err)
	var cert *x509.Certificate
	if errors.As(err, &verify) && len(verify.UnverifiedCertificates) > 0 {
		cert = verify.UnverifiedCertificates[0]
	}
	port := "port " + portOf(base)
	switch {
	case errors.As(err, &record) && string(record.RecordHeader[:]) == "HTTP/":
		s.fail(port+" speaks plain http, not https",
			"is the port in {BaseURL} right? The vendor's is 443")
	case errors.As(err, &record):
		s.fail(port+" does not speak TLS", "is the port in {BaseURL} right?")
	case cert == nil:
		s.trouble("", t.err)
	case errors.As(err, &wrongHost):
		s.fail(fmt.Sprintf("the certificate is for %s, not for %s",
			list(names(cert), 5), base.Hostname()),
			"is the domain in {BaseURL} right?")
	case errors.As(err, &authority):
		s.fail(fmt.Sprintf("nobody whom this machine trusts vouches for the certificate for %s "+
			"from %s",
			list(names(cert), 3), issuer(cert)),
			"is there a gateway of yours in between? Then set {RootCAs} to its CA")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		s.fail(fmt.Sprintf("the certificate is good from %s to %s only",
			at(cert.NotBefore), at(cert.NotAfter)),
			"is this machine's clock right? It says "+at(time.Now()))
	default:
		s.trouble("", t.err)
	}
}

func names(cert *x509.Certificate) []string {
	out := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		out = append(out, ip.String())
	}
	if len(out) == 0 {
		out = []string{cert.Subject.String()}
	}
	return out
}

func issuer(cert *x509.Certificate) string {
	if len(cert.Issuer.Organization) > 0 {
		return cert.Issuer.Organization[0]
	}
	return cert.Issuer.String()
}

// credentials reports the answer to the token call.
func (s *state) credentials(t *trip) {
	want, seen := s.Vendor.TenantID, t.seen
	unusable := func(text, do string) {
		s.result(Result{Level: Failure, Setting: true, Text: setting.Text(text), Do: do})
	}
	switch {
	case errors.Is(t.err, isdp.ErrTenant) && want == 0:
		unusable("the token does not say whose it is (plat_user.tenantId)",
			"set {TenantID} to the tenant's number")
		return
	case errors.Is(t.err, isdp.ErrTenant):
		unusable(fmt.Sprintf("the credentials are tenant %d's, but {TenantID} is %d",
			seen.Tenant, want),
			fmt.Sprintf("set {TenantID} to %d or leave it out, or use the credentials of tenant %d",
				seen.Tenant, want))
		return
	case t.err != nil:
		s.trouble("", t.err)
		return
	}
	by := "by the token"
	s.tenant = seen.Tenant
	if seen.Tenant == 0 {
		s.tenant, by = want, setting.Text("by {TenantID}; the token does not say")
	}
	text := fmt.Sprintf("tenant %d (%s), good for %s (%s)",
		s.tenant, by, dur(seen.Life), dur(seen.Took))
	if seen.Life < slowToken {
		s.warn(text, "so short a life costs many token calls; ask the vendor whether it is meant")
		return
	}
	s.ok(text)
}

// trouble reports an error of the client's. of says what it is of, where there is more than one.
func (s *state) trouble(of string, err error) {
	e, ok := errors.AsType[*listing.Error](err)
	switch {
	case !ok:
		s.fail(of+err.Error(), "")
	case e.Err == context.DeadlineExceeded: // the probe's own limit
		s.fail(of+errNoAnswer.Error(), e.Hint)
	default:
		s.fail(of+cmp.Or(isdp.Why(e), e.Err.Error()), e.Hint)
	}
}
