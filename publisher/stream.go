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
	"golang.org/x/mod/semver"

	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/schemas"
)

// MinVersion is the oldest nats-server that the stream works on. 2.12 brought atomic batch
// publishing (NATS ADR-50), and up to 2.12.7 it compares the fence with the subject before the
// transform, or refuses the rollup: every commit but the first is refused (seen with 2.12.0 to
// 2.12.7).
const MinVersion = "2.12.8"

// CheckVersion says whether a nats-server of that version ("2.15.2") is [MinVersion] or later, as
// semantic versions go: a pre-release comes before its release, so that 2.12.8-RC.1 is too old and
// 2.13.0-RC.1 is not. What is no version is too old. Its error is a *[SetupError].
func CheckVersion(version string) error {
	if semver.Compare("v"+strings.TrimPrefix(version, "v"), "v"+MinVersion) >= 0 {
		return nil
	}
	return &SetupError{
		fmt.Errorf("the NATS server is version %s, and rollcall needs %s or later",
			version, MinVersion),
		"upgrade it, and all servers of its cluster; " +
			"earlier ones refuse every commit but the first",
	}
}

// CheckPayload says whether a server that takes messages of so many bytes (max_payload) is of use;
// its error is a *[SetupError].
func CheckPayload(bytes int64) error {
	if bytes >= MinPayload {
		return nil
	}
	return &SetupError{
		fmt.Errorf("the NATS server takes messages of %d bytes at most, and rollcall needs %d",
			bytes, MinPayload),
		"raise its max_payload (1MB is the default), on all servers of its cluster",
	}
}

// A leaseMarkerTTL is how long the bucket remembers that a lease has ended, so that every watcher
// sees it.
const leaseMarkerTTL = time.Minute

// What the stream takes, and what it stores that under.
const (
	taken  = schemas.LogPrefix + ">"
	stored = schemas.StoredPrefix + ">"
)

// metadata says what the messages of the stream are, to who comes across it.
func metadata() map[string]string {
	version := schemas.DataSchema[strings.LastIndex(schemas.DataSchema, ":v")+2:]
	return map[string]string{
		"rollcall.schema": schemas.DataSchema, "rollcall.schema-version": version,
	}
}

// streamConfig is the stream as rollcall creates it.
func streamConfig(c Config) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:               schemas.Stream,
		Description:        "rollcall: events, states, watermarks and health of ISDP+ agents",
		Metadata:           metadata(),
		Subjects:           []string{taken},
		SubjectTransform:   &jetstream.SubjectTransformConfig{Source: taken, Destination: stored},
		RePublish:          &jetstream.RePublish{Source: stored, Destination: stored},
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

// misfits names every setting that keeps rollcall from using an existing stream.
func misfits(c jetstream.StreamConfig) (bad []string) {
	want := func(ok bool, format string, args ...any) {
		if !ok {
			bad = append(bad, fmt.Sprintf(format, args...))
		}
	}
	want(slices.Equal(c.Subjects, []string{taken}),
		"subjects are %q, want %q alone", c.Subjects, taken)
	t := c.SubjectTransform
	want(t != nil && t.Source == taken && t.Destination == stored,
		"the subject transform must be %s to %s", taken, stored)
	r := c.RePublish
	want(r != nil && slices.Contains([]string{stored, ">", ""}, r.Source) &&
		r.Destination == stored && !r.HeadersOnly,
		"republish must be %s to %s, whole messages", stored, stored)
	want(c.Retention == jetstream.LimitsPolicy,
		"retention is %s, want limits", strings.ToLower(c.Retention.String()))
	want(c.Discard == jetstream.DiscardNew, "discard is %s, want new",
		strings.ToLower(strings.TrimPrefix(c.Discard.String(), "Discard")))
	want(c.MaxAge == 0, "max age is %s, want none: events carry a TTL of their own", c.MaxAge)
	want(c.MaxMsgsPerSubject <= 0,
		"max messages per subject is %d, want no limit", c.MaxMsgsPerSubject)
	want(c.MaxMsgs <= 0, "max messages is %d, want no limit", c.MaxMsgs)
	want(c.MaxMsgSize <= 0, "max message size is %d, want no limit", c.MaxMsgSize)
	want(len(c.Sources) == 0 && c.Mirror == nil, "it has sources or a mirror, want none")
	want(c.MaxBytes > 0,
		"it has no size limit: set max bytes below what account, server and disk can hold")
	want(c.AllowAtomicPublish, "atomic publish is off")
	want(c.AllowRollup, "rollup is off")
	want(c.AllowMsgTTL, "message TTL is off")
	want(c.AllowDirect, "direct get is off")
	want(c.DenyDelete, "deny delete is off")
	want(c.SubjectDeleteMarkerTTL <= 0,
		"delete markers are on: they would enter the stream as empty messages")
	threshold := c.ConsumerLimits.InactiveThreshold
	want(threshold <= 0 || threshold >= inactive,
		"consumers' inactive threshold is limited to %s, want no limit or at least %s",
		threshold, inactive)
	want(!c.NoAck, "acknowledgements are off")
	want(!c.Sealed, "it is sealed")
	return bad
}

// bucketMisfits is misfits for the stream behind the bucket, where leases live for ttl.
func bucketMisfits(c jetstream.StreamConfig, ttl time.Duration) (bad []string) {
	if c.SubjectDeleteMarkerTTL <= 0 {
		bad = append(bad, "it has no limit marker TTL, so leases could not expire")
	}
	if c.MaxAge > 0 && c.MaxAge < ttl {
		bad = append(bad, fmt.Sprintf("its TTL is %s, so leases would end before their time: "+
			"want none, or at least %s", c.MaxAge, ttl))
	}
	return bad
}

// prepare creates the stream and the bucket where they are missing, or checks them. It never alters
// what is there.
func prepare(ctx context.Context, r *Reader) error {
	info, err := r.Stream(ctx)
	if err == nil && info == nil {
		var s jetstream.Stream
		if s, err = r.js.CreateStream(ctx, streamConfig(r.cfg)); err != nil {
			return explain(fmt.Errorf("create stream %s: %w", schemas.Stream, err))
		}
		info = s.CachedInfo()
		r.log.Info("created the stream", "stream", schemas.Stream,
			"replicas", r.cfg.Replicas, "maxBytes", r.cfg.MaxBytes)
	}
	if err != nil {
		return err
	}
	if info.Config.Storage != jetstream.FileStorage {
		r.log.Warn("the stream is kept in memory only, so a restart of the NATS server empties "+
			"it: create it with file storage", "stream", schemas.Stream)
	}
	_, err = prepareBucket(ctx, r)
	return err
}

// prepareBucket is prepare for the bucket alone.
func prepareBucket(ctx context.Context, r *Reader) (jetstream.KeyValue, error) {
	info, err := r.Bucket(ctx)
	if err != nil {
		return nil, err
	}
	var kv jetstream.KeyValue
	if info != nil {
		kv, err = r.js.KeyValue(ctx, schemas.Bucket)
	} else {
		kv, err = r.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket:         schemas.Bucket,
			Description:    "rollcall: which replica polls which tenant",
			Storage:        jetstream.FileStorage,
			Replicas:       r.cfg.Replicas,
			LimitMarkerTTL: leaseMarkerTTL,
		})
	}
	if err != nil {
		return nil, explain(fmt.Errorf("open bucket %s: %w", schemas.Bucket, err))
	}
	return kv, nil
}

// errSubjectsOverlap is the server's code for a subject that another stream has
// (JSStreamSubjectOverlapErr).
const errSubjectsOverlap = 10065

// explain adds what to do to the errors that an operator meets first. None of them is final: a
// server that is starting, or a cluster that has no leader, answers the same.
func explain(err error) error {
	var api *jetstream.APIError
	var do string
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled),
		errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		do = "enable JetStream on the server and for this account"
	case errors.As(err, &api) && api.ErrorCode == errSubjectsOverlap:
		do = "another stream of this account has " + taken + " already: take it out of that one, " +
			"or use an account of rollcall's own"
	case errors.Is(err, jetstream.ErrStreamNameAlreadyInUse):
		do = "another replica was quicker; the next try finds its stream"
	case errors.As(err, &api) && api.Code == 400:
		do = setting.Text("the server refuses what rollcall needs: " +
			"see its limits, and {Replicas} and {MaxBytes}")
	case errors.Is(err, nats.ErrNoResponders):
		do = "nobody answers for JetStream; unless it is just starting, " +
			"enable JetStream on the server and for this account"
	case errors.Is(err, context.DeadlineExceeded):
		do = "no answer from JetStream; it may be starting, have no leader, " +
			"or this user may lack permission for $JS.API"
	default:
		return err
	}
	return fmt.Errorf("%w: %s", err, do)
}
