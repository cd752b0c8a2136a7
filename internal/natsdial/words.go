package natsdial

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/internal/setting"
)

// Advise adds to an error of connecting what it most often means, and what to do about it.
func Advise(err error) error {
	err = plain(err)
	if do := Advice(err); do != "" {
		return fmt.Errorf("%w: %s", err, do)
	}
	return err
}

// errNoWebSocket stands for what the client's HTTP says of a malformed answer. Its own words
// quote the server, differ each time, and say nothing of what to do.
var errNoWebSocket = errors.New("what answers at this port of a ws:// or wss:// URL " +
	"is not a WebSocket server")

// plain replaces errors that quote what a server has sent.
func plain(err error) error {
	var header textproto.ProtocolError
	if err == nil || !errors.As(err, &header) &&
		!strings.Contains(err.Error(), "malformed HTTP ") &&
		!strings.Contains(err.Error(), "invalid websocket connection") {
		return err
	}
	return errNoWebSocket
}

const setCert = "for a client certificate set {CertFile} and {KeyFile}"

// said are the words of errors that have no type: alerts that the server sends, and what the TLS
// library says of its answers; the first that fits counts.
var said = []struct{ words, advice string }{
	{"tls: handshake failure", "the server offers nothing that is safe enough, or wants a client " +
		"certificate: it has to offer TLS 1.2 with an ECDHE cipher suite, or TLS 1.3; " + setCert},
	{"tls: certificate required", "the server wants a client certificate: " + setCert},
	{"protocol version", "the server's TLS is too old: it has to offer TLS 1.2 at least"},
	{"closed by remote after TLS handshake", "most often the server wants a client certificate, " +
		"or another one: " + setCert},
	{"remote error: tls: ", "the server does not accept the client certificate in " +
		"{CertFile}, or wants one and gets none"},
	{"first record does not look like a TLS handshake", "the server speaks no TLS at this port: " +
		"write nats:// in {URLs}, or name the right port"},
}

// Advice says what to do about an error of connecting; "": nobody knows.
func Advice(err error) string { return setting.Text(advice(err)) }

func advice(err error) string {
	var (
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		dns       *net.DNSError
	)
	switch {
	case errors.Is(err, errSilent):
		return "are the host and the port in {URLs} right? If so, see that server's log"
	case errors.Is(err, errNoWebSocket):
		return "write nats:// or tls:// in {URLs}, or name the port and the scheme of " +
			"the server's websocket block"
	case errors.Is(err, nats.ErrNoServers):
		return "is it running, and is {URLs} right?"
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired),
		errors.Is(err, nats.ErrAuthRevoked), errors.Is(err, nats.ErrAccountAuthExpired):
		return "check {CredsFile}, {NKeyFile} or " +
			"the user in {URLs}"
	case errors.Is(err, nats.ErrSecureConnWanted):
		return "the server has no TLS: write nats:// in {URLs}, " +
			"without {CAFile} and {CertFile}"
	case errors.As(err, &authority):
		return "{CAFile} has to hold the CA of the server's certificate"
	case errors.As(err, &host):
		return "{URLs} has to name the server as its certificate does"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the server needs a new certificate, or this machine's clock is wrong"
	case errors.As(err, &record):
		return said[len(said)-1].advice
	case errors.As(err, &dns):
		return "is the host in {URLs} right?"
	}
	for _, s := range said {
		if strings.Contains(err.Error(), s.words) {
			return s.advice
		}
	}
	return ""
}
