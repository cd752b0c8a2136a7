package main

import (
	"fmt"
	"log/slog"
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/internal/engine"
	"github.com/rollcall-events/rollcall/internal/natsd"
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
		RootCAs:        s.ISDPRootCAs.value,
		TenantID:       s.TenantID.value,
		SweepTimeout:   s.PollTimeout.value,
		RequestTimeout: s.RequestTimeout.value,
		PageSize:       s.PageSize.value,
		Concurrency:    s.Concurrency.value,
		RateLimit:      s.RateLimit.value,
		Logger:         log,
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
	return engine.Config{
		Tenant:       tenant,
		Interval:     s.PollInterval.value,
		RemoveAfter:  s.RemoveAfter.value,
		MaxMissing:   s.MaxMissing.value,
		MissingHold:  s.MissingHold.value,
		Quiet:        s.QuietFields.value,
		Types:        types,
		BufferEvents: s.BufferEvents.value,
		Logger:       log,
	}
}

func (s *settings) natsd(log *slog.Logger) natsd.Config {
	return natsd.Config{Listen: s.NATSListen.value, DataDir: s.DataDir.value, MaxBytes: s.NATSMaxBytes.value, Logger: log}
}

// natsOptions are how to authenticate to a NATS server that is not our own.
func (s *settings) natsOptions() ([]nats.Option, error) {
	var opts []nats.Option
	if f := s.NATSCredsFile.value; f != "" {
		opts = append(opts, nats.UserCredentials(f))
	}
	if f := s.NATSNKeyFile.value; f != "" {
		opt, err := nats.NkeyOptionFromSeed(f)
		if err != nil {
			return nil, fmt.Errorf("read ROLLCALL_NATS_NKEY_FILE: %w", err)
		}
		opts = append(opts, opt)
	}
	if f := s.NATSCAFile.value; f != "" {
		opts = append(opts, nats.RootCAs(f))
	}
	if f := s.NATSCertFile.value; f != "" {
		opts = append(opts, nats.ClientCert(f, s.NATSKeyFile.value))
	}
	return opts, nil
}
