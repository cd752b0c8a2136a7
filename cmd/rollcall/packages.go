package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/rollcall-events/rollcall/internal/engine"
	"github.com/rollcall-events/rollcall/internal/natsd"
	"github.com/rollcall-events/rollcall/internal/natsdial"
	"github.com/rollcall-events/rollcall/poller"
	"github.com/rollcall-events/rollcall/publisher"
)

// The settings, as each package wants them.

func (s *settings) poller(log *slog.Logger) poller.Config {
	return poller.Config{
		BaseURL:        s.ISDPURL.value,
		ClientID:       s.ISDPClientID.value.reveal(),
		ClientSecret:   s.ISDPClientSecret.value.reveal(),
		Username:       s.ISDPUsername.value.reveal(),
		Password:       s.ISDPPassword.value.reveal(),
		Types:          s.ISDPTypes.value,
		Reread:         s.rereadAccount(),
		RootCAs:        s.vendorRoots(),
		TenantID:       s.TenantID.value,
		SweepTimeout:   s.PollTimeout.value,
		RequestTimeout: s.RequestTimeout.value,
		PageSize:       s.PageSize.value,
		Concurrency:    s.Concurrency.value,
		RateLimit:      s.RateLimit.value,
		Logger:         log,
	}
}

// rereadAccount reads the credentials that stand in files, each by the path that was set; nil where
// none does.
func (s *settings) rereadAccount() func() (poller.Account, error) {
	type part struct {
		name, value, file string
		into              func(*poller.Account) *string
	}
	parts := []part{
		{"ROLLCALL_ISDP_CLIENT_ID_FILE", s.ISDPClientID.value.reveal(), s.ISDPClientIDFile.value, func(a *poller.Account) *string { return &a.ClientID }},
		{"ROLLCALL_ISDP_CLIENT_SECRET_FILE", s.ISDPClientSecret.value.reveal(), s.ISDPClientSecretFile.value, func(a *poller.Account) *string { return &a.ClientSecret }},
		{"ROLLCALL_ISDP_USERNAME_FILE", s.ISDPUsername.value.reveal(), s.ISDPUsernameFile.value, func(a *poller.Account) *string { return &a.Username }},
		{"ROLLCALL_ISDP_PASSWORD_FILE", s.ISDPPassword.value.reveal(), s.ISDPPasswordFile.value, func(a *poller.Account) *string { return &a.Password }},
	}
	if !slices.ContainsFunc(parts, func(p part) bool { return p.file != "" }) {
		return nil
	}
	return func() (a poller.Account, err error) {
		for _, p := range parts {
			if p.file != "" {
				if p.value, err = readText(p.file); err != nil {
					return a, fmt.Errorf("read %s: %w", p.name, err)
				}
				if strings.TrimSpace(p.value) == "" {
					return a, fmt.Errorf("read %s: the file is empty", p.name)
				}
			}
			*p.into(&a) = p.value
		}
		return a, nil
	}
}

// vendorRoots reads ROLLCALL_ISDP_CA_FILE; nil where that is not set.
func (s *settings) vendorRoots() func() (*x509.CertPool, error) {
	path := s.ISDPCAFile.value
	if path == "" {
		return nil
	}
	return func() (*x509.CertPool, error) {
		content, err := readFile(path)
		if err != nil {
			return nil, fmt.Errorf("read ROLLCALL_ISDP_CA_FILE: %w", err)
		}
		pool, err := withSystemCAs(content)
		if err != nil {
			return nil, fmt.Errorf("read ROLLCALL_ISDP_CA_FILE: %w", err)
		}
		return pool, nil
	}
}

func (s *settings) publisher(tenant int64, log *slog.Logger) publisher.Config {
	return publisher.Config{
		Tenant:       tenant,
		Instance:     s.Instance.value,
		Replicas:     s.NATSReplicas.value,
		Manage:       s.NATSManage.value,
		EventsMaxAge: s.EventsMaxAge.value,
		MaxBytes:     s.NATSMaxBytes.value,
		LeaseTTL:     s.LeaseTTL.value,
		Exclusive:    s.embedded(), // the data directory is ours alone
		Logger:       log,
	}
}

func (s *settings) engine(tenant int64, log *slog.Logger) engine.Config {
	types := make([]string, len(s.ISDPTypes.value))
	for i, t := range s.ISDPTypes.value {
		types[i] = strconv.Itoa(t)
	}
	giveUp := s.LeaseTTL.value // to pass the lease on takes about so long
	if s.embedded() {
		giveUp = 0 // nobody else has the data directory
	}
	return engine.Config{
		Tenant:       tenant,
		Interval:     s.PollInterval.value,
		RemoveAfter:  s.RemoveAfter.value,
		MaxMissing:   s.MaxMissing.value,
		MissingHold:  s.MissingHold.value,
		Quiet:        s.QuietFields.value,
		Types:        types,
		BufferEvents: s.BufferEvents.value,
		GiveUp:       giveUp,
		Logger:       log,
	}
}

func (s *settings) natsd(log *slog.Logger) natsd.Config {
	return natsd.Config{Listen: s.NATSListen.value, DataDir: s.DataDir.value, MaxBytes: s.NATSMaxBytes.value, Logger: log}
}

// natsServers are the NATS servers that are not our own.
func (s *settings) natsServers(log *slog.Logger) *natsdial.Servers {
	return &natsdial.Servers{
		URLs: s.natsURLs, CredsFile: s.NATSCredsFile.value, NKeyFile: s.NATSNKeyFile.value, CAFile: s.NATSCAFile.value,
		CertFile: s.NATSCertFile.value, KeyFile: s.NATSKeyFile.value, Logger: log,
	}
}

// natsURLs is ROLLCALL_NATS_URL, read again where it stands in a file.
func (s *settings) natsURLs() (string, error) {
	path := s.NATSURLFile.value
	if path == "" {
		return s.NATSURL.value.reveal(), nil
	}
	text, err := readText(path)
	if err != nil {
		return "", fmt.Errorf("read ROLLCALL_NATS_URL_FILE: %w", err)
	}
	urls, err := natsURLs.parse(text)
	if err != nil { // what it holds may be a password
		return "", errors.New("read ROLLCALL_NATS_URL_FILE: it does not hold URLs of NATS servers")
	}
	return urls.reveal(), nil
}
