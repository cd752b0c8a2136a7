package check

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/poller/isdp"
	"github.com/rollcall-events/rollcall/schemas"
)

const (
	soonExpired = 14 * 24 * time.Hour    // a certificate that has less left is told
	farOff      = 5 * time.Second        // of the vendor's clock; its header has whole seconds
	demandTime  = 300 * time.Millisecond // for a server to say that it demands a certificate
	slowToken   = 2 * time.Minute        // a token with less life is renewed all the time
)

// vendor is the vendor's host and port.
func (s *state) vendor() (u *url.URL, host, port string) {
	u, err := url.Parse(s.Vendor.BaseURL)
	if err != nil {
		u = &url.URL{} // the settings have been judged already
	}
	return u, u.Hostname(), portOf(u)
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

// dns looks up the vendor's domain, or the proxy's where one is used: then the proxy looks the
// domain up.
func (s *state) dns(ctx context.Context) {
	_, host, _ := s.vendor()
	whose, setting := "", "ROLLCALL_ISDP_URL"
	if s.Proxy != nil {
		host, whose, setting = s.Proxy.Hostname(), "the proxy ", "HTTPS_PROXY"
		s.warn("connections to the vendor go through the proxy "+s.Proxy.Host, "HTTPS_PROXY says so; add the domain to NO_PROXY if they should not")
	}
	if _, err := netip.ParseAddr(host); err == nil {
		s.addrs = []string{host}
		s.ok(whose + host + " is an address: nothing to look up")
		return
	}
	start := time.Now()
	addrs, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		var dns *net.DNSError
		if errors.As(err, &dns) && dns.IsNotFound {
			s.fail(fmt.Sprintf("%s%s: there is no such domain", whose, host), "is the domain in "+setting+" right?")
			return
		}
		s.fail(fmt.Sprintf("%s%s could not be looked up: %v", whose, host, reason(err)), "does DNS work on this machine?")
		return
	}
	slices.Sort(addrs)
	s.addrs = addrs
	s.ok(fmt.Sprintf("%s%s is %s (%s)", whose, host, list(addrs, 3), dur(time.Since(start))))
}

// reason is an error without what its reader knows already.
func reason(err error) error {
	if op := new(net.OpError); errors.As(err, &op) && op.Err != nil {
		return reason(op.Err)
	}
	if dns := new(net.DNSError); errors.As(err, &dns) {
		return errors.New(dns.Err)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("no answer in time")
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("connection refused")
	}
	return err
}

// tcp opens a connection to the vendor, or to the proxy.
func (s *state) tcp(ctx context.Context) {
	u, host, port := s.vendor()
	setting := "ROLLCALL_ISDP_URL"
	if s.Proxy != nil {
		u, host, port, setting = s.Proxy, s.Proxy.Hostname(), portOf(s.Proxy), "HTTPS_PROXY"
	}
	addr := net.JoinHostPort(host, port)
	start := time.Now()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		do := "is a firewall in the way, or is the domain in " + setting + " wrong?"
		if errors.Is(err, syscall.ECONNREFUSED) {
			do = "nothing listens there: are domain and port of " + setting + " right?"
		}
		s.fail(fmt.Sprintf("no connection to %s: %v", addr, reason(err)), do)
		return
	}
	conn.Close()
	s.ok(fmt.Sprintf("%s accepts connections (%s)", net.JoinHostPort(u.Hostname(), port), dur(time.Since(start))))
}

// tls shakes hands, and looks at the certificate.
func (s *state) tls(ctx context.Context) {
	u, host, port := s.vendor()
	if u.Scheme == "http" {
		s.ok("none: plain http, towards this machine only")
		return
	}
	if s.Proxy != nil && strings.HasPrefix(s.Proxy.Scheme, "socks") {
		s.ok("left to the token call: the proxy is a SOCKS one")
		return
	}
	conn, err := s.dial(ctx, host, port)
	if err != nil {
		_, do := isdp.Hint(err, false)
		s.fail(err.Error(), cmp.Or(do, "does the proxy let this machine reach "+net.JoinHostPort(host, port)+"?"))
		return
	}
	defer conn.Close()
	var roots *x509.CertPool
	if s.Vendor.RootCAs != nil {
		if roots, err = s.Vendor.RootCAs(); err != nil {
			s.fail(err.Error(), "put the file back")
			return
		}
	}
	wanted := false // the server has asked for a certificate of the client
	c := tls.Client(conn, &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12, RootCAs: roots,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			wanted = true
			return &tls.Certificate{}, nil // there is none
		}})
	err = c.HandshakeContext(ctx)
	if err == nil && wanted {
		// With TLS 1.3 the server says only now that it can't do without.
		_ = c.SetReadDeadline(time.Now().Add(demandTime))
		if _, err = c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			err = nil
		}
	}
	if err != nil {
		s.fail(handshake(err, host, port, wanted))
		return
	}
	cs := c.ConnectionState()
	cert := cs.PeerCertificates[0]
	left := time.Until(cert.NotAfter)
	text := fmt.Sprintf("%s, certificate for %s from %s, good for %s", tls.VersionName(cs.Version), list(names(cert), 3), issuer(cert), dur(left))
	if left < soonExpired {
		s.warn(text, "have it renewed before "+at(cert.NotAfter)+": rollcall stops polling then")
		return
	}
	s.ok(text)
}

// handshake says why TLS failed and what to do.
func handshake(err error, host, port string, wanted bool) (text, do string) {
	var (
		record    tls.RecordHeaderError
		verify    *tls.CertificateVerificationError
		authority x509.UnknownAuthorityError
		wrongHost x509.HostnameError
		invalid   x509.CertificateInvalidError
	)
	var cert *x509.Certificate
	if errors.As(err, &verify) && len(verify.UnverifiedCertificates) > 0 {
		cert = verify.UnverifiedCertificates[0]
	}
	switch {
	case errors.As(err, &record) && string(record.RecordHeader[:]) == "HTTP/":
		return "port " + port + " speaks plain http, not https", "is the port in ROLLCALL_ISDP_URL right? The vendor's is 443"
	case errors.As(err, &record):
		return "port " + port + " does not speak TLS", "is the port in ROLLCALL_ISDP_URL right?"
	case errors.As(err, &wrongHost) && cert != nil:
		return fmt.Sprintf("the certificate is for %s, not for %s", list(names(cert), 5), host), "is the domain in ROLLCALL_ISDP_URL right?"
	case errors.As(err, &authority) && cert != nil:
		return fmt.Sprintf("nobody whom this machine trusts vouches for the certificate for %s from %s", list(names(cert), 3), issuer(cert)),
			"is there a gateway of yours in between? Then set ROLLCALL_ISDP_CA_FILE to its CA"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && cert != nil:
		return fmt.Sprintf("the certificate is good from %s to %s only", at(cert.NotBefore), at(cert.NotAfter)),
			"is this machine's clock right? It says " + at(time.Now())
	}
	if why, do := isdp.Hint(err, wanted); why != "" {
		return why, do
	}
	return "no TLS: " + reason(err).Error(), "does something in between meddle with it?"
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

// dial connects to the vendor, through the proxy where there is one. Its errors name no credentials
// of the proxy's.
func (s *state) dial(ctx context.Context, host, port string) (net.Conn, error) {
	target := net.JoinHostPort(host, port)
	if s.Proxy == nil {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", target)
		if err != nil {
			return nil, fmt.Errorf("no connection to %s: %w", target, reason(err))
		}
		return conn, nil
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(s.Proxy.Hostname(), portOf(s.Proxy)))
	if err != nil {
		return nil, fmt.Errorf("no connection to the proxy: %w", reason(err))
	}
	if s.Proxy.Scheme == "https" {
		conn = tls.Client(conn, &tls.Config{ServerName: s.Proxy.Hostname(), MinVersion: tls.VersionTLS12})
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline) // where it can't be set, ctx still ends what follows
	}
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: target}, Host: target, Header: http.Header{}}
	if user := s.Proxy.User; user != nil {
		password, _ := user.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	if err := req.Write(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("the proxy does not listen: %w", reason(err))
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		conn.Close()
		return nil, errors.New("the proxy does not answer as one")
	}
	if resp.StatusCode != http.StatusOK {
		conn.Close()
		return nil, isdp.ProxyRefusal(resp.StatusCode, target)
	}
	return conn, nil
}

// token makes one token call.
func (s *state) token(ctx context.Context) {
	c := s.Vendor
	c.Logger = nil
	c.RateLimit = max(c.RateLimit, 2) // a handful of calls, once: no need to wait a minute for the second
	p, err := isdp.New(c)
	if err != nil {
		s.fail(err.Error(), "")
		return
	}
	s.client = p
	seen, err := p.ProbeToken(ctx)
	if errors.Is(err, isdp.ErrTenant) {
		want := s.Vendor.TenantID
		if want == 0 {
			s.result(Result{Level: Failure, Setting: true, Text: "the token does not say whose it is (plat_user.tenantId)",
				Do: "set ROLLCALL_TENANT_ID to the tenant's number"})
			return
		}
		s.result(Result{Level: Failure, Setting: true, Text: fmt.Sprintf("the credentials are tenant %d's, but ROLLCALL_TENANT_ID is %d", seen.Tenant, want),
			Do: fmt.Sprintf("set ROLLCALL_TENANT_ID to %d or leave it out, or use the credentials of tenant %d", seen.Tenant, want)})
		return
	}
	if err != nil {
		s.trouble("", err)
		return
	}
	by := "by the token"
	s.tenant = seen.Tenant
	if seen.Tenant == 0 {
		s.tenant, by = s.Vendor.TenantID, "by ROLLCALL_TENANT_ID; the token does not say"
	}
	text := fmt.Sprintf("tenant %d (%s), good for %s (%s)", s.tenant, by, dur(seen.Life), dur(seen.Took))
	if seen.Life < slowToken {
		s.warn(text, "so short a life costs many token calls; ask the vendor whether it is meant")
		return
	}
	s.ok(text)
}

// trouble tells an error of the poller's, which says what to do itself. of names what it is of,
// where there is more than one.
func (s *state) trouble(of string, err error) {
	text, do := err.Error(), ""
	if e := new(listing.Error); errors.As(err, &e) {
		text, do = e.Err.Error(), e.Hint
	}
	s.fail(of+text, do)
}

// listed is what the first page of a listing showed.
type listed struct {
	*isdp.PageSeen
	took time.Duration
}

// listing asks for the first page of each listing, and looks at what is odd in it.
func (s *state) listing(ctx context.Context) {
	agents, online, total := 0, 0, 0
	var took time.Duration
	var odd oddities
	for i := range max(1, len(s.Vendor.Types)) {
		seen, err := s.client.ProbePage(ctx, i)
		if err != nil {
			of := ""
			if len(s.Vendor.Types) > 1 {
				of = fmt.Sprintf("type %d: ", s.Vendor.Types[i])
			}
			s.trouble(of, err)
			return
		}
		l := listed{seen, seen.Read.Sub(seen.Sent)}
		s.listed = append(s.listed, l)
		took += l.took
		total += l.Total
		agents += len(l.Agents)
		for _, a := range l.Agents {
			if a.Online() {
				online++
			}
		}
		odd.look(l.PageSeen)
	}
	text := fmt.Sprintf("%s in all; the first page has %d, %d of them online (%s)", count(total, "agent"), agents, online, dur(took))
	if n := len(s.listed); n > 1 {
		text = fmt.Sprintf("%s in %d listings; their first pages have %d, %d of them online (%s)", count(total, "agent"), n, agents, online, dur(took))
	}
	if total == 0 {
		s.warn("the listing is empty", "are these the right tenant's credentials, and is ROLLCALL_ISDP_TYPES right where it is set?")
	} else {
		s.ok(text)
	}
	s.odd(&odd)
	s.clock()
}

// oddities are what is odd about the rows of the first pages.
type oddities struct {
	rows                            int // of the pages
	undocumented, dropped, rejected map[string]int
	status                          map[string]int
	ids                             map[int64]int
	details                         map[string]int // of rejected rows
	repaired                        int
}

func (o *oddities) look(p *isdp.PageSeen) {
	if o.ids == nil {
		o.undocumented, o.dropped, o.rejected, o.status, o.ids, o.details = map[string]int{},
			map[string]int{}, map[string]int{}, map[string]int{}, map[int64]int{}, map[string]int{}
	}
	o.rows += len(p.Rows)
	refused := make(map[int]bool)
	for _, r := range p.Rejected {
		o.rejected[r.Reason]++
		if r.Detail != "" {
			o.details[r.Detail]++
		}
		refused[r.Index] = true
	}
	o.repaired += p.Repaired
	next := 0
	for i, row := range p.Rows {
		if refused[i] || next >= len(p.Agents) {
			continue
		}
		a := p.Agents[next].Unpack()
		next++
		o.ids[a.AgentID]++
		if a.OnlineStatus != 0 && a.OnlineStatus != 1 {
			o.status[strconv.FormatInt(a.OnlineStatus, 10)]++
		}
		for _, f := range a.Other {
			o.undocumented[f.Name]++
		}
		var fields map[string]json.RawMessage
		_ = json.Unmarshal(row, &fields) // it has been decoded once
		for name, raw := range fields {
			if _, has := a.Field(name); schemas.Listed(name) && !has && string(raw) != "null" {
				o.dropped[name]++
			}
		}
	}
}

func sorted(counts map[string]int) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, fmt.Sprintf("%s (%d)", clip(name), counts[name]))
	}
	return out
}

// clip keeps a name that someone else has chosen short.
func clip(name string) string {
	if r := []rune(name); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return name
}

// odd tells what is odd about the first pages.
func (s *state) odd(o *oddities) {
	for i, l := range s.listed {
		which := ""
		if len(s.listed) > 1 {
			which = fmt.Sprintf("type %d: ", s.Vendor.Types[i])
		}
		switch n := len(l.Rows); {
		case l.Misplaced:
			s.fail(which+"the answer was for another page than the first", "pages that can't be told apart make no complete sweep: ask the vendor")
		case n != l.Expected && n > 0 && n < l.Expected:
			s.fail(fmt.Sprintf("%sasked for %d agents a page, got %d of %d: pageSize is not honoured, so no sweep would be complete", which, s.pageSize(), n, l.Total),
				fmt.Sprintf("set ROLLCALL_PAGE_SIZE=%d", n))
		case n != l.Expected:
			s.fail(fmt.Sprintf("%sthe page has %s, and total_count %d calls for %d: no sweep would be complete", which, count(n, "row"), l.Total, l.Expected), "ask the vendor")
		}
	}
	var twice []string
	for id, n := range o.ids {
		if n > 1 {
			twice = append(twice, strconv.FormatInt(id, 10))
		}
	}
	if slices.Sort(twice); len(twice) > 0 {
		s.warn("agents listed more than once: "+list(twice, 5), "a sweep that shows an agent twice is not complete; if this lasts, ask the vendor")
	}
	bad := 0
	for _, n := range o.rejected {
		bad += n
	}
	switch text := "rows that can't be used, by reason: " + list(sorted(o.rejected), 8); {
	case 10*bad > o.rows:
		s.fail(fmt.Sprintf("%d of %d %s", bad, o.rows, text), "their agents stay published as they were, and health is failing (unusable): "+
			"ask the vendor what has changed in these fields")
	case bad > 0:
		s.warn(text, "they are counted and never published; ask the vendor")
	}
	for _, detail := range slices.Sorted(maps.Keys(o.details))[:min(3, len(o.details))] {
		s.warn(fmt.Sprintf("%s that can't be used: %s", count(o.details[detail], "row"), detail),
			"tell the vendor, or who runs the gateway in between")
	}
	if o.repaired > 0 {
		s.warn(count(o.repaired, "value")+" that not every JSON parser takes: bytes that are not UTF-8, "+
			"half a surrogate pair, or U+0000",
			"what can't stay is marked with U+FFFD and braces in the events; tell the vendor")
	}
	if len(o.status) > 0 {
		s.warn("onlineStatus other than 0 and 1: "+list(sorted(o.status), 5), "it counts as not online")
	}
	if len(o.dropped) > 0 {
		s.warn("fields whose value is of a kind that it should not be: "+list(sorted(o.dropped), 8), "they are left out of the events")
	}
	if len(o.undocumented) > 0 {
		s.say(OK, "fields that the vendor does not document: "+list(sorted(o.undocumented), 8), "they are carried as they come, and quiet unless ROLLCALL_QUIET_FIELDS says otherwise")
	}
}

// clock compares the vendor's clock with this machine's.
func (s *state) clock() {
	l := s.listed[0]
	if l.Date.IsZero() {
		return
	}
	// The header is cut to the second and says when, between the two, the answer began.
	off := time.Duration(0)
	switch {
	case l.Date.Add(time.Second).Before(l.Sent):
		off = l.Date.Add(time.Second).Sub(l.Sent)
	case l.Date.After(l.Read):
		off = l.Date.Sub(l.Read)
	}
	if off.Abs() <= farOff {
		return
	}
	word := "ahead of"
	if off < 0 {
		word = "behind"
	}
	s.warn(fmt.Sprintf("the vendor's clock is %s %s this machine's", dur(off.Abs()), word),
		"one of the two is wrong; the times in events are this machine's: see to its NTP")
}

func (s *state) pageSize() int {
	if s.Vendor.PageSize == 0 {
		return isdp.MaxPageSize
	}
	return s.Vendor.PageSize
}

// rate estimates how long a sweep takes at these limits.
func (s *state) rate(context.Context) {
	pages := 0
	var request time.Duration
	for _, l := range s.listed {
		pages += max(1, (l.Total+s.pageSize()-1)/s.pageSize())
		request = max(request, l.took)
	}
	limit, parallel := s.Vendor.RateLimit, s.Poller.Concurrency
	byRate := time.Duration(min(float64(pages-1)/limit*float64(time.Second), math.MaxInt64/2))
	byRequests := time.Duration(math.Ceil(float64(pages)/float64(parallel))) * request
	sweep := max(byRate+request, byRequests)
	timeout := s.Poller.SweepTimeout
	derived := ""
	if timeout == 0 { // as the poller derives it
		timeout = max(time.Minute, time.Duration(min(3*float64(pages)/limit*float64(time.Second), math.MaxInt64/2)))
		derived = " (derived)"
	}
	aSecond := fmt.Sprintf("%g requests a second", limit)
	if limit == 1 {
		aSecond = "1 request a second"
	}
	s.say(OK, fmt.Sprintf("at most %s calls a minute; the vendor publishes no limit for this call, and documents 60 a minute for a sibling service",
		strconv.FormatFloat(60*limit, 'f', -1, 64)),
		"for more, ask the vendor what this account may do, then raise ROLLCALL_RATE_LIMIT; where it refuses, rollcall slows down by itself")
	text := fmt.Sprintf("a sweep of %s takes about %s at %s, %d at a time", count(pages, "page"), dur(sweep), aSecond, parallel)
	faster := "raise ROLLCALL_RATE_LIMIT as far as the vendor lets you"
	if byRequests > byRate+request {
		faster = "raise ROLLCALL_CONCURRENCY"
	}
	switch {
	case sweep > timeout:
		s.fail(text+", and ROLLCALL_POLL_TIMEOUT ends it after "+dur(timeout)+derived, faster+", or raise ROLLCALL_POLL_TIMEOUT: like this no sweep is ever complete")
	case sweep > s.Interval:
		s.warn(text+", and ROLLCALL_POLL_INTERVAL is "+dur(s.Interval),
			"the next sweep waits for the last to end, so changes show after about "+dur(sweep)+"; "+faster+", or raise the interval")
	case 2*sweep > timeout:
		s.warn(text+", and ROLLCALL_POLL_TIMEOUT is "+dur(timeout)+derived, "a few repeated requests would end it incomplete: raise ROLLCALL_POLL_TIMEOUT")
	default:
		s.ok(text + "; every " + dur(s.Interval))
	}
}
