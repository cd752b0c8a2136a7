package publisher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/schemas"
)

// MinVersion is the oldest nats-server that the stream works on. 2.12 brought atomic batch publishing (NATS ADR-50), and up to
// 2.12.7 it compares the fence with the subject before the transform, or refuses the rollup: every commit but the first is
// refused (seen with 2.12.0 to 2.12.7).
const MinVersion = "2.12.8"

// A leaseMarkerTTL is how long the bucket remembers that a lease has ended, so that every watcher
// sees it.
const leaseMarkerTTL = time.Minute

// streamConfig is the log as rollcall creates it.
func streamConfig(c Config) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:               schemas.Stream,
		Description:        "rollcall: events, states, watermarks and health of ISDP+ agents",
		Subjects:           []string{schemas.LogPrefix + ">"},
		SubjectTransform:   &jetstream.SubjectTransformConfig{Source: schemas.LogPrefix + ">", Destination: schemas.StoredPrefix + ">"},
		RePublish:          &jetstream.RePublish{Source: schemas.StoredPrefix + ">", Destination: schemas.StoredPrefix + ">"},
		Storage:            jetstream.FileStorage,
		Retention:          jetstream.LimitsPolicy,
		Discard:            jetstream.DiscardNew,
		MaxMsgs:            -1,
		MaxMsgsPerSubject:  -1,
		MaxBytes:           c.MaxBytes,
		Replicas:           c.Replicas,
		AllowAtomicPublish: true,
		AllowRollup:        true,
		AllowMsgTTL:        true,
		AllowDirect:        true,
		DenyDelete:         true,
	}
}

// misfits names every setting of an existing stream that keeps rollcall from using it as the log.
func misfits(c jetstream.StreamConfig) []string {
	var out []string
	differ := func(is bool, format string, args ...any) {
		if is {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	in, stored := schemas.LogPrefix+">", schemas.StoredPrefix+">"
	differ(!slices.Equal(c.Subjects, []string{in}), "subjects are %q, want %q alone", c.Subjects, in)
	t := c.SubjectTransform
	differ(t == nil || t.Source != in || t.Destination != stored, "the subject transform must be %s to %s", in, stored)
	r := c.RePublish
	differ(r == nil || r.Source != stored && r.Source != ">" && r.Source != "" || r.Destination != stored || r.HeadersOnly,
		"republish must be %s to %s, whole messages", stored, stored)
	differ(c.Retention != jetstream.LimitsPolicy, "retention is %s, want limits", strings.ToLower(c.Retention.String()))
	differ(c.Discard != jetstream.DiscardNew, "discard is %s, want new", strings.ToLower(strings.TrimPrefix(c.Discard.String(), "Discard")))
	differ(c.MaxAge != 0, "max age is %s, want none: events carry a TTL of their own", c.MaxAge)
	differ(c.MaxMsgsPerSubject > 0, "max messages per subject is %d, want no limit", c.MaxMsgsPerSubject)
	differ(c.MaxMsgs > 0, "max messages is %d, want no limit", c.MaxMsgs)
	differ(c.MaxMsgSize > 0, "max message size is %d, want no limit", c.MaxMsgSize)
	differ(len(c.Sources) > 0 || c.Mirror != nil, "it has sources or a mirror, want none")
	differ(c.MaxBytes <= 0, "it has no size limit: set max bytes below what account, server and disk can hold")
	differ(!c.AllowAtomicPublish, "atomic publish is off")
	differ(!c.AllowRollup, "rollup is off")
	differ(!c.AllowMsgTTL, "message TTL is off")
	differ(!c.AllowDirect, "direct get is off")
	differ(!c.DenyDelete, "deny delete is off")
	differ(c.SubjectDeleteMarkerTTL > 0, "delete markers are on: they would enter the log as empty messages")
	differ(c.NoAck, "acknowledgements are off")
	differ(c.Sealed, "it is sealed")
	return out
}

// prepare creates the stream and the bucket where they are missing, or checks them. It never alters
// what is there.
func (p *Publisher) prepare(ctx context.Context) error {
	if err := p.checkServer(); err != nil {
		return err
	}
	if err := p.prepareStream(ctx); err != nil {
		return err
	}
	_, err := p.prepareBucket(ctx)
	return err
}

func (p *Publisher) prepareStream(ctx context.Context) error {
	s, err := p.js.Stream(ctx, schemas.Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if !p.cfg.Manage {
			return noStream()
		}
		s, err = p.js.CreateStream(ctx, streamConfig(p.cfg))
		if err == nil {
			p.log.Info("created the log", "stream", schemas.Stream, "replicas", p.cfg.Replicas, "maxBytes", p.cfg.MaxBytes)
		} else if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another replica was quicker
			s, err = p.js.Stream(ctx, schemas.Stream)
		}
	}
	if err != nil {
		return explain(fmt.Errorf("open stream %s: %w", schemas.Stream, err))
	}
	if err := unfit(s.CachedInfo().Config); err != nil {
		return err
	}
	if s.CachedInfo().Config.Storage != jetstream.FileStorage {
		p.log.Warn("the log is kept in memory only: a restart of the NATS server empties it", "stream", schemas.Stream)
	}
	return nil
}

func (p *Publisher) prepareBucket(ctx context.Context) (jetstream.KeyValue, error) {
	kv, err := p.js.KeyValue(ctx, schemas.Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		if !p.cfg.Manage {
			return nil, noBucket()
		}
		kv, err = p.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket:         schemas.Bucket,
			Description:    "rollcall: which replica polls which tenant",
			Storage:        jetstream.FileStorage,
			Replicas:       p.cfg.Replicas,
			LimitMarkerTTL: leaseMarkerTTL,
		})
		if errors.Is(err, jetstream.ErrBucketExists) {
			kv, err = p.js.KeyValue(ctx, schemas.Bucket)
		}
	}
	if err != nil {
		return nil, explain(fmt.Errorf("open bucket %s: %w", schemas.Bucket, err))
	}
	return kv, fitBucket(ctx, kv)
}

// checkServer says whether the server that this connection is with now can hold the stream: another
// one, or an older one on its place, may have come with a reconnect. A *[SetupError] is final.
func (p *Publisher) checkServer() error {
	version := p.nc.ConnectedServerVersion()
	if version == "" { // that it can't be told is no reason to give up
		return nats.ErrDisconnected
	}
	if err := CheckVersion(version); err != nil {
		return &SetupError{fmt.Errorf("%s: %w", p.nc.ConnectedAddr(), err)}
	}
	if err := CheckPayload(p.nc.MaxPayload()); err != nil {
		return &SetupError{fmt.Errorf("%s: %w", p.nc.ConnectedAddr(), err)}
	}
	return nil
}

// errSubjectsOverlap is the server's code for a subject that another stream has
// (JSStreamSubjectOverlapErr).
const errSubjectsOverlap = 10065

// explain adds what to do to the errors that an operator meets first. None of them is final: a
// server that is starting, or a cluster that has no leader, answers the same.
func explain(err error) error {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("%w: enable JetStream on the server and for this account", err)
	case errors.As(err, &api) && api.ErrorCode == errSubjectsOverlap:
		return fmt.Errorf("%w: another stream of this account has %s> already: take it out of that one, or use an account of rollcall's own", err, schemas.LogPrefix)
	case errors.As(err, &api) && api.Code == 400:
		return fmt.Errorf("%w: the server refuses what rollcall needs; see its limits and ROLLCALL_NATS_REPLICAS, ROLLCALL_NATS_MAX_BYTES", err)
	case errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("%w: nobody answers for JetStream; unless it is just starting, enable JetStream on the server and for this account", err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: no answer from JetStream; it may be starting, have no leader, or this user may lack permission for $JS.API", err)
	}
	return err
}
