package isdp

import (
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
)

// Hint says what to look at when a connection fails; "" where the error speaks for itself.
// certificateWanted says that the server has asked for a certificate of the client.
func Hint(err error, certificateWanted bool) string {
	if hint := proxyHint(err); hint != "" {
		return hint
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
		return "there is no such domain; is ROLLCALL_ISDP_URL right?"
	case errors.As(err, &dns):
		return "the domain could not be looked up; does DNS work on this machine?"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there; are domain and port of ROLLCALL_ISDP_URL right?"
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &record):
		return "that port speaks plain http, not https; is the port in ROLLCALL_ISDP_URL right?"
	case errors.As(err, &authority):
		return "nobody whom this machine trusts vouches for the certificate; is it a gateway of yours? Then set ROLLCALL_ISDP_CA_FILE to its CA"
	case errors.As(err, &host):
		return "the certificate is for another domain; is ROLLCALL_ISDP_URL right?"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "is this machine's clock right?"
	case strings.Contains(alert, "certificate required"), certificateWanted && (alert != "" || broken(err)):
		return certificateDemanded
	case strings.Contains(alert, "protocol version"), strings.Contains(err.Error(), "unsupported protocol version"):
		return "the server and rollcall speak no TLS version in common, and rollcall speaks 1.2 and 1.3; " +
			"is a gateway too old? Ask who runs it for TLS 1.2"
	case strings.Contains(alert, "handshake failure"), strings.Contains(alert, "insufficient security"):
		return "the server and rollcall have no cipher in common, so it most likely offers old ones only; " +
			"is a gateway too old? Ask who runs it for ECDHE with AES-GCM"
	case strings.Contains(alert, "unrecognized name"):
		return "the server does not know this domain; is ROLLCALL_ISDP_URL right?"
	}
	return ""
}

// broken reports whether a connection ended without a word.
func broken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		strings.Contains(err.Error(), "client conn could not be established") // HTTP/2 has no error for it
}

const certificateDemanded = "the server demands a certificate of the client, which rollcall has none of; " +
	"is there an address without that demand? Ask who runs the gateway"

// hinted is a text with what to look at.
func hinted(text, hint string) string {
	if hint == "" {
		return text
	}
	return text + ": " + hint
}

// notSubscribed is what a call that the vendor refuses, though it takes the token, most likely
// means.
const notSubscribed = "if this lasts: has the application subscribed to the API findOnlineAgent? " +
	"Or is the account bound to other addresses than this machine's?"

// refusedCall explains the status of an agents call that the vendor refused.
func refusedCall(e *listing.Error, status int) *listing.Error {
	switch status {
	case http.StatusForbidden:
		e.Err = fmt.Errorf("%w; %s", e.Err, notSubscribed)
	case http.StatusNotFound:
		e.Err = fmt.Errorf("%w; there is no findOnlineAgent at this address: is ROLLCALL_ISDP_URL right?", e.Err)
	}
	return e
}

// refusedToken makes of the status of a token call what it means: any 4xx refuses it, but for those
// that failed says are no answer. code is the answer's OAuth error, where it has one.
func refusedToken(e *listing.Error, r *reply, code string) *listing.Error {
	if r.status/100 != 4 || e.Class == listing.Unreachable {
		return e
	}
	gone := r.status == http.StatusNotFound || r.status == http.StatusMethodNotAllowed ||
		r.status == http.StatusGone
	wrong := ""
	switch {
	case code != "":
	case gone:
		wrong = "there is no ISDP+ OpenAPI at this address; is ROLLCALL_ISDP_URL right?"
	case r.status == http.StatusBadRequest && strings.Contains(string(r.body), "HTTP request") && strings.Contains(string(r.body), "HTTPS"):
		wrong = "that port wants https; make ROLLCALL_ISDP_URL begin with https://"
	case r.status == http.StatusBadRequest && strings.Contains(string(r.body), "SSL certificate"):
		wrong = certificateDemanded
	}
	if wrong != "" {
		return &listing.Error{Class: listing.Credentials, Err: fmt.Errorf("%w: %s", e.Err, wrong)}
	}
	refused := refusedCredentials(e.Err, code)
	if r.status == http.StatusForbidden && code == "" {
		refused.Err = fmt.Errorf("%w, and the account may be bound to other addresses than this machine's",
			refused.Err)
	}
	return refused
}

// refusedCredentials is the error of a token call that was refused, with what to look at by its
// OAuth error.
func refusedCredentials(err error, code string) *listing.Error {
	which := "ROLLCALL_ISDP_CLIENT_ID, ROLLCALL_ISDP_CLIENT_SECRET, ROLLCALL_ISDP_USERNAME and ROLLCALL_ISDP_PASSWORD"
	switch code {
	case "invalid_client", "unauthorized_client":
		which = "ROLLCALL_ISDP_CLIENT_ID and ROLLCALL_ISDP_CLIENT_SECRET"
	case "invalid_grant":
		which = "ROLLCALL_ISDP_USERNAME (the application's id) and ROLLCALL_ISDP_PASSWORD (its token)"
	}
	return &listing.Error{Class: listing.Credentials, Err: fmt.Errorf("refused: %w: %s must be right, not expired and not swapped", err, which)}
}
