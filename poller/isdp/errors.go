package isdp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/setting"
)

func unreachable(err error) *listing.Error {
	return &listing.Error{Class: listing.Unreachable, Err: err}
}

func unusable(format string, args ...any) *listing.Error {
	return &listing.Error{Class: listing.Unusable, Err: fmt.Errorf(format, args...)}
}

func badCredentials(format string, args ...any) *listing.Error {
	return &listing.Error{Class: listing.Credentials, Err: fmt.Errorf(format, args...)}
}

// hinted gives an error a hint, which names settings by their fields.
func hinted(e *listing.Error, hint string) *listing.Error {
	e.Hint = setting.Text(hint)
	return e
}

// ended is the error of what was not done because ctx was over.
func ended(ctx context.Context) *listing.Error {
	return listing.Ended(ctx.Err(), context.Cause(ctx))
}

// late is the error of what can't be done before ctx's deadline.
func late(why string) *listing.Error {
	e := unreachable(&foreign{text: why, err: context.DeadlineExceeded})
	e.Fatal = true
	return e
}

// foreign is an error with another text.
type foreign struct {
	text string
	why  string // what that means, in plain words; empty: text says it
	err  error
}

func (f *foreign) Error() string {
	if f.why == "" {
		return f.text
	}
	return f.text + ": " + f.why
}

func (f *foreign) Unwrap() error { return f.err }

// Why says in plain words what went wrong with a connection, without what the network or a library
// says of it; "" where that is all there is to say.
func Why(err error) string {
	if f, ok := errors.AsType[*foreign](err); ok {
		return f.why
	}
	return ""
}

// What several errors advise.
const (
	checkURL = "is {BaseURL} right?"

	certificateDemanded = "the server demands a certificate of the client, " +
		"which rollcall has none of"
	avoidCertificate = "is there an address without that demand? Ask who runs the gateway"

	// What a call that the vendor refuses, though it takes the token, most likely means.
	notSubscribed = "if this lasts: has the application subscribed to the API findOnlineAgent? " +
		"Or is the account bound to other addresses than this machine's?"

	mayUse = "may this account use the agents call?"
)

// connectHint says why a connection failed, and what to look at; nothing where the error speaks for
// itself. certificateWanted says that the server has asked for a certificate of the client.
func connectHint(err error, certificateWanted bool) (why, hint string) {
	if why, hint := proxyHint(err); hint != "" {
		return why, hint
	}
	var (
		dns       *net.DNSError
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		remote    *net.OpError
	)
	alert := "" // what the server says of why it does not go on; its type is crypto/tls's own
	if errors.As(err, &remote) && remote.Op == "remote error" {
		alert = remote.Err.Error()
	}
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "there is no such domain", checkURL
	case errors.As(err, &dns):
		return "the domain could not be looked up", "does DNS work on this machine?"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there", "are domain and port of {BaseURL} right?"
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &record):
		return "that port speaks plain http, not https", "is the port in {BaseURL} right?"
	case errors.As(err, &authority):
		return "nobody whom this machine trusts vouches for the certificate",
			"is it a gateway of yours? Then set {RootCAs} to its CA"
	case errors.As(err, &host):
		return "the certificate is for another domain", checkURL
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "", "is this machine's clock right?"
	case strings.Contains(alert, "certificate required"),
		certificateWanted && (alert != "" || broken(err)):
		return certificateDemanded, avoidCertificate
	case strings.Contains(alert, "protocol version"),
		strings.Contains(err.Error(), "unsupported protocol version"):
		return "the server and rollcall speak no TLS version in common, " +
				"and rollcall speaks 1.2 and 1.3",
			"is a gateway too old? Ask who runs it for TLS 1.2"
	case strings.Contains(alert, "handshake failure"),
		strings.Contains(alert, "insufficient security"):
		return "the server and rollcall have no cipher in common, " +
				"so it most likely offers old ones only",
			"is a gateway too old? Ask who runs it for ECDHE with AES-GCM"
	case strings.Contains(alert, "unrecognized name"):
		return "the server does not know this domain", checkURL
	}
	return "", ""
}

// broken reports whether a connection ended without a word.
func broken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		// HTTP/2 has no error for it.
		strings.Contains(err.Error(), "client conn could not be established")
}

// statusError returns the error that an answer's status is, nil where it is none.
func statusError(status int) *listing.Error {
	switch {
	case status/100 == 2:
		return nil
	case status == http.StatusSwitchingProtocols:
		return hinted(unusable("HTTP %d, a switch of protocols that nobody asked for", status),
			"does a gateway or proxy of yours answer in the vendor's place? Is {BaseURL} right?")
	case status/100 == 3:
		return hinted(unusable("HTTP %d, a redirect: never followed, "+
			"since it would resend the credentials", status), checkURL)
	case status == http.StatusRequestTimeout, status == http.StatusTooManyRequests, status >= 500:
		e := unreachable(fmt.Errorf("HTTP %d", status))
		e.Refused = status == http.StatusInternalServerError
		return e
	}
	e := unusable("HTTP %d", status)
	e.Refused = status/100 == 4
	return e
}

// pageStatusError returns the error that the status of an agents call is.
func pageStatusError(status int) *listing.Error {
	e := statusError(status)
	switch status {
	case http.StatusForbidden:
		return hinted(e, notSubscribed)
	case http.StatusNotFound:
		e.Err = fmt.Errorf("%w; there is no findOnlineAgent at this address", e.Err)
		return hinted(e, checkURL)
	}
	return e
}

// tokenStatusError returns the error that the status of a token call is: any 4xx refuses it, but
// for 429. code is the answer's OAuth error, where it has one, and said what to show of it.
func tokenStatusError(r *reply, code, said string) *listing.Error {
	e := statusError(r.status)
	if e == nil {
		return nil
	}
	e.Err = fmt.Errorf("%w%s", e.Err, said)
	says := func(words string) bool {
		return r.status == http.StatusBadRequest && strings.Contains(string(r.utf8), words)
	}
	switch {
	case r.status/100 != 4 || r.status == http.StatusTooManyRequests:
		return e
	case code != "": // it is ISDP+
	case r.status == http.StatusNotFound, r.status == http.StatusMethodNotAllowed,
		r.status == http.StatusGone:
		return hinted(badCredentials("%w: there is no ISDP+ OpenAPI at this address", e.Err),
			checkURL)
	case says("HTTP request") && says("HTTPS"):
		return hinted(badCredentials("%w: that port wants https", e.Err),
			"make {BaseURL} begin with https://")
	case says("SSL certificate"):
		return hinted(badCredentials("%w: "+certificateDemanded, e.Err), avoidCertificate)
	}
	refused := refusedCredentials(e.Err, code)
	if r.status == http.StatusForbidden && code == "" {
		refused.Err = fmt.Errorf("%w, and the account may be bound to other addresses "+
			"than this machine's", refused.Err)
	}
	return refused
}

// refusedCredentials is the error of a token call that was refused, with what to look at by its
// OAuth error.
func refusedCredentials(err error, code string) *listing.Error {
	which := "{ClientID}, {ClientSecret}, {Username} and {Password}"
	switch code {
	case "invalid_client", "unauthorized_client":
		which = "{ClientID} and {ClientSecret}"
	case "invalid_grant":
		which = "{Username} (the application's id) and {Password} (its token)"
	}
	return badCredentials("refused: %w: %s must be right, not expired and not swapped",
		err, setting.Text(which))
}
