// Package signin connects the examples to NATS, as somebody: by a context of the nats command line,
// or by flags.
package signin

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"net/url"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/natscontext"
)

// Flags say where NATS is, and as whom to sign in. A user and a password, or a token, stand in the
// URL: nats://user:password@host.
type Flags struct {
	context, url, creds, nkey, ca, cert, key, domain string
}

// Add defines the flags.
func Add(to *flag.FlagSet) *Flags {
	f := new(Flags)
	to.StringVar(&f.context, "context", "", "a `context` of the nats command line, "+
		"which says all of the following: its name, or its file's absolute path")
	servers := os.Getenv("NATS_URL")
	if servers == "" {
		servers = nats.DefaultURL
	}
	to.StringVar(&f.url, "nats", servers, "the `URLs` of the NATS servers that have rollcall's "+
		"stream, separated by commas; default: NATS_URL")
	to.StringVar(&f.creds, "creds", "", "the credentials `file` to sign in with")
	to.StringVar(&f.nkey, "nkey", "", "the `file` with the seed of the NKey to sign in with")
	to.StringVar(&f.ca, "tlsca", "", "the `file` with the certificates that sign the servers'")
	to.StringVar(&f.cert, "tlscert", "", "the `file` with the certificate to show to the servers")
	to.StringVar(&f.key, "tlskey", "", "the `file` with that certificate's key")
	to.StringVar(&f.domain, "js-domain", "", "the JetStream `domain` that has the stream: "+
		"rollcall, in an account with JetStream of its own")
	return f
}

// Connect connects, under a name that the server shows. A server that can't be reached now is tried
// again, for ever; one that refuses to let us in ends the connection, as it does later.
func (f *Flags) Connect(name string) (*nats.Conn, jetstream.JetStream, error) {
	var told string // the client calls its handlers one after the other
	opts := []nats.Option{nats.Name(name), nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1), nats.ReconnectWait(time.Second),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			if err.Error() != told {
				told = err.Error()
				log.Printf("connect to NATS: %v; trying again", err)
			}
		})}
	nc, domain, err := f.connect(opts)
	if isURL := new(url.Error); errors.As(err, &isURL) { // it shows the URL, password included
		return nil, nil, errors.New("connect to NATS: the URL of the servers can't be read; " +
			"write special characters of a password as %XX")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("connect to NATS: %w", err)
	}
	js, err := jetstream.New(nc)
	if domain != "" {
		js, err = jetstream.NewWithDomain(nc, domain)
	}
	if err != nil {
		nc.Close()
		return nil, nil, fmt.Errorf("use JetStream: %w", err)
	}
	return nc, js, nil
}

func (f *Flags) connect(opts []nats.Option) (nc *nats.Conn, domain string, err error) {
	if f.context != "" {
		nc, context, err := natscontext.Connect(f.context, opts...)
		return nc, context.JSDomain, err
	}
	if f.creds != "" {
		opts = append(opts, nats.UserCredentials(f.creds))
	}
	if f.nkey != "" {
		sign, err := nats.NkeyOptionFromSeed(f.nkey)
		if err != nil {
			return nil, "", fmt.Errorf("read the seed in %s: %w", f.nkey, err)
		}
		opts = append(opts, sign)
	}
	if f.ca != "" {
		opts = append(opts, nats.RootCAs(f.ca))
	}
	if f.cert != "" || f.key != "" {
		opts = append(opts, nats.ClientCert(f.cert, f.key))
	}
	nc, err = nats.Connect(f.url, opts...)
	return nc, f.domain, err
}

// Ended says why a connection has ended for good, and is nil while it has not.
func Ended(nc *nats.Conn) error {
	if !nc.IsClosed() {
		return nil
	}
	err := nc.LastError()
	if errors.Is(err, nats.ErrAuthorization) {
		return fmt.Errorf("NATS does not let us in: %w; sign in with -context, -creds, -nkey or "+
			"a user in -nats", err)
	}
	return fmt.Errorf("the connection to NATS has ended for good: %w", err)
}
