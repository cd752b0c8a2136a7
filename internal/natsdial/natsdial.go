// Package natsdial connects to NATS servers as the settings say, and sees to what the client does
// not: that a server which takes its time keeps nobody waiting, that what the settings name is read
// again whenever a connection is made, and that servers which want TLS before anything is said are
// reached.
//
// The client (nats.Conn) dials while it holds its lock, for as long as that takes, so with three
// servers of which none answers it can neither be asked how it is nor be closed for 15 s. See
// dialer.go for the way round that.
package natsdial

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// Servers says which NATS servers to connect to, and as whom. The files are read at each
// connection.
type Servers struct {
	// URLs gives the servers, separated by commas, as they are to be used now. It may be called
	// from any goroutine.
	URLs func() (string, error)

	CredsFile, NKeyFile       string // empty: not so
	CAFile, CertFile, KeyFile string // empty: not so

	// InboxPrefix is under what the answers to requests come; empty: _INBOX.
	InboxPrefix string

	// Logger gets what no error says; nil: discard.
	Logger *slog.Logger

	mu       sync.Mutex
	urls     string // the ones that are used; guarded by mu
	reported string // the last error of renewing them that was logged; guarded by mu
}

// At are the servers at fixed URLs, separated by commas, without credentials.
func At(urls string) *Servers {
	return &Servers{URLs: func() (string, error) { return urls, nil }}
}

// Connect connects to one of the servers, trying each for a few seconds, with opts besides. It ends
// with ctx. The connection reads the settings again whenever it is made again, until it is closed.
func (s *Servers) Connect(ctx context.Context, opts ...nats.Option) (*nats.Conn, error) {
	urls, err := s.URLs()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.urls = urls
	s.mu.Unlock()
	return s.ConnectTo(ctx, urls, opts...)
}

// ConnectTo is Connect to other servers of theirs, such as one that another has named.
func (s *Servers) ConnectTo(
	ctx context.Context, urls string, opts ...nats.Option,
) (*nats.Conn, error) {
	own, err := s.options()
	if err != nil {
		return nil, err
	}
	opts = slices.Concat(opts, own)
	nc, hungUp, err := s.connect(ctx, urls, greeting, opts)
	if err == nil || !hungUp || ctx.Err() != nil {
		return nc, err
	}
	// A server that takes nothing but TLS (handshake_first) waits for the client to begin with it,
	// and then hangs up.
	nc, _, tlsErr := s.connect(ctx, urls, handshake, opts)
	if tlsErr == nil || errors.Is(tlsErr, nats.ErrTLS) && Advice(tlsErr) != "" {
		return nc, tlsErr
	}
	return nil, err
}

// connect connects once; hungUp: a server took the connection and closed it without a word.
func (s *Servers) connect(
	ctx context.Context, urls string, o opening, opts []nats.Option,
) (nc *nats.Conn, hungUp bool, err error) {
	if strings.HasPrefix(urls, "ws") { // in HTTP the client speaks first
		o = webRequest
	}
	d := newDialer(s, o, s.CAFile != "" || s.CertFile != "" || strings.Contains(urls, "tls://"))
	opts = slices.Concat(opts, []nats.Option{nats.SetCustomDialer(d), nats.SkipHostLookup()})
	if o == handshake {
		opts = append(opts, nats.TLSHandshakeFirst())
	}
	type result struct {
		nc  *nats.Conn
		err error
	}
	connected := make(chan result, 1)
	go func() {
		deadline := time.Now().Add(tryFor + patience)
		nc, err := nats.Connect(urls, opts...)
		for err != nil && time.Now().Before(deadline) {
			if pending, _, _ := d.outcome(); !pending {
				break
			}
			nc, err = nats.Connect(urls, opts...) // a server that had not answered may have by now
		}
		if _, _, failed := d.outcome(); errors.Is(err, ErrPending) {
			err = cmp.Or(failed, err)
		}
		connected <- result{nc, plain(err)}
	}()
	select {
	case r := <-connected:
		if r.err != nil {
			d.close()
			_, hungUp, _ := d.outcome()
			return nil, hungUp, r.err
		}
		d.connected(r.nc)
		return r.nc, false, nil
	case <-ctx.Done(): // what is under way ends by itself
		d.close()
		go func() {
			if r := <-connected; r.nc != nil {
				r.nc.Close()
			}
		}()
		return nil, false, ctx.Err()
	}
}

// options are how to sign in, and whom to trust.
func (s *Servers) options() ([]nats.Option, error) {
	var opts []nats.Option
	if f := s.CredsFile; f != "" {
		opts = append(opts, nats.UserCredentials(f)) // reads both halves at each connection
	}
	if f := s.NKeyFile; f != "" {
		pub, err := publicKey(f)
		if err != nil {
			return nil, err
		}
		opts = append(opts, nats.Nkey(pub, func(nonce []byte) ([]byte, error) {
			return sign(f, nonce)
		}))
	}
	if f := s.CAFile; f != "" {
		opts = append(opts, nats.RootCAs(f))
	}
	if f := s.CertFile; f != "" {
		opts = append(opts, nats.ClientCert(f, s.KeyFile))
	}
	if s.InboxPrefix != "" {
		opts = append(opts, nats.CustomInboxPrefix(s.InboxPrefix))
	}
	return opts, nil
}

// renew reads again what the client would keep: the public key of a seed, and the servers. It is
// called with the client's lock held, before a connection is made.
func (s *Servers) renew(nc *nats.Conn) {
	if s.NKeyFile != "" {
		if pub, err := publicKey(s.NKeyFile); err == nil { // otherwise signing fails, and says why
			nc.Opts.Nkey = pub
		}
	}
	go s.renewServers(nc) // it needs the lock, and counts for the next try
}

func (s *Servers) renewServers(nc *nats.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	urls, err := s.URLs()
	if err == nil && urls != s.urls {
		if err = nc.SetServerPool(split(urls)); err == nil {
			s.urls = urls
			log.Info("the list of NATS servers has changed, and the new one is used")
		}
	}
	reported := ""
	if err != nil && !nc.IsClosed() {
		reported = err.Error()
	}
	if reported != "" && reported != s.reported {
		log.Warn("the list of NATS servers can't be read again; going on with the one before",
			"err", err)
	}
	s.reported = reported
}

func split(urls string) []string {
	list := strings.Split(urls, ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}

// withSeed calls use with the key pair whose seed the file holds.
func withSeed(path string, use func(nkeys.KeyPair) error) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the seed of the NKey: %w", err)
	}
	defer clear(content)
	kp, err := nkeys.ParseDecoratedNKey(content)
	if err == nil {
		defer kp.Wipe()
		err = use(kp)
	}
	if err != nil {
		return fmt.Errorf("read the seed of the NKey in %s: %w", path, err)
	}
	return nil
}

func publicKey(path string) (pub string, err error) {
	err = withSeed(path, func(kp nkeys.KeyPair) (err error) {
		pub, err = kp.PublicKey()
		if err == nil && !nkeys.IsValidPublicUserKey(pub) {
			err = errors.New("it is not a user's")
		}
		return err
	})
	return pub, err
}

func sign(path string, nonce []byte) (signature []byte, err error) {
	err = withSeed(path, func(kp nkeys.KeyPair) (err error) {
		signature, err = kp.Sign(nonce)
		return err
	})
	return signature, err
}
