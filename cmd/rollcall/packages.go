package main

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"strconv"

	"github.com/rollcall-events/rollcall/diff"
	"github.com/rollcall-events/rollcall/internal/engine"
	"github.com/rollcall-events/rollcall/internal/natsd"
	"github.com/rollcall-events/rollcall/internal/natsdial"
	"github.com/rollcall-events/rollcall/poller"
	"github.com/rollcall-events/rollcall/poller/isdp"
	"github.com/rollcall-events/rollcall/publisher"
)

// The settings, as each package wants them.

func (s *settings) vendor(log *slog.Logger) isdp.Config {
	account := s.account()
	return isdp.Config{
		ClientID:       account.ClientID,
		ClientSecret:   account.ClientSecret,
		Username:       account.Username,
		Password:       account.Password,
		BaseURL:        s.ISDPURL,
		Types:          s.ISDPTypes,
		Reread:         s.rereadAccount(),
		RootCAs:        s.vendorRoots(),
		TenantID:       s.TenantID,
		RequestTimeout: s.RequestTimeout,
		PageSize:       s.PageSize,
		RateLimit:      s.RateLimit,
		Logger:         log,
	}
}

func (s *settings) poller(log *slog.Logger) poller.Config {
	c := poller.Config{
		Types:        s.types(),
		SweepTimeout: s.PollTimeout,
		Concurrency:  s.Concurrency,
		Logger:       log,
	}
	if s.Glances {
		c.GlanceAfter = s.PollInterval
	}
	return c
}

// types are the business types that are polled.
func (s *settings) types() (types []string) {
	for _, t := range s.ISDPTypes {
		types = append(types, strconv.Itoa(t))
	}
	return types
}

// rereadAccount reads the credentials again, where any of them stands in a file; nil where none
// does.
func (s *settings) rereadAccount() func() (isdp.Account, error) {
	if s.source == withoutVendor || !s.inFile("ClientID", "ClientSecret", "Username", "Password") {
		return nil
	}
	return func() (isdp.Account, error) {
		again, err := s.reread("ClientID", "ClientSecret", "Username", "Password")
		return again.account(), err
	}
}

// account is the credentials of the token call.
func (s *settings) account() isdp.Account {
	return isdp.Account{
		ClientID: s.ISDPClientID.reveal(), ClientSecret: s.ISDPClientSecret.reveal(),
		Username: s.ISDPUsername.reveal(), Password: s.ISDPPassword.reveal(),
	}
}

// vendorRoots reads the system's CAs and those of ROLLCALL_ISDP_CA_FILE; nil where that is not set.
func (s *settings) vendorRoots() func() (*x509.CertPool, error) {
	if s.ISDPCAFile == "" {
		return nil
	}
	return func() (*x509.CertPool, error) {
		content, err := readFile(s.ISDPCAFile)
		if err == nil {
			err = holdsCAs(content)
		}
		if err != nil {
			return nil, fmt.Errorf("read ROLLCALL_ISDP_CA_FILE: %w", err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool() // then the file has to do
		}
		pool.AppendCertsFromPEM(content)
		return pool, nil
	}
}

func (s *settings) publisher(tenant int64, log *slog.Logger) publisher.Config {
	return publisher.Config{
		Tenant:       tenant,
		Instance:     s.Instance,
		Replicas:     s.NATSReplicas,
		Manage:       s.NATSManage,
		EventsMaxAge: s.EventsMaxAge,
		MaxBytes:     s.NATSMaxBytes,
		LeaseTTL:     s.LeaseTTL,
		Exclusive:    s.embedded(), // the data directory is ours alone
		Logger:       log,
	}
}

func (s *settings) engine(tenant int64, log *slog.Logger) engine.Config {
	giveUp := s.LeaseTTL // to pass the lease on takes about so long
	if s.embedded() {
		giveUp = 0 // nobody else has the data directory
	}
	return engine.Config{
		Tenant:   tenant,
		Interval: s.PollInterval,
		Rules: diff.Rules{
			RemoveAfter:  s.RemoveAfter,
			MaxMissing:   s.MaxMissing,
			MissingHold:  s.MissingHold,
			Quiet:        s.QuietFields,
			Types:        s.types(),
			BufferEvents: s.BufferEvents,
		},
		GiveUp: giveUp,
		Logger: log,
	}
}

func (s *settings) natsd(log *slog.Logger) natsd.Config {
	return natsd.Config{
		Listen: s.NATSListen, DataDir: s.DataDir, MaxBytes: s.NATSMaxBytes, Logger: log,
	}
}

// natsServers are the NATS servers that are not our own.
func (s *settings) natsServers(log *slog.Logger) *natsdial.Servers {
	return &natsdial.Servers{
		URLs: s.natsURLs, CredsFile: s.NATSCredsFile, NKeyFile: s.NATSNKeyFile,
		CAFile: s.NATSCAFile, CertFile: s.NATSCertFile, KeyFile: s.NATSKeyFile,
		InboxPrefix: s.NATSInboxPrefix, Logger: log,
	}
}

// natsURLs is ROLLCALL_NATS_URL, read again where it stands in a file.
func (s *settings) natsURLs() (string, error) {
	if !s.inFile("URLs") {
		return s.NATSURL.reveal(), nil
	}
	again, err := s.reread("URLs")
	return again.NATSURL.reveal(), err
}
