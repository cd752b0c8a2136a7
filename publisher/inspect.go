package publisher

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/mod/semver"

	"github.com/rollcall-events/rollcall/schemas"
)

// What follows lets others look at a log without a Publisher, and changes nothing.

// BucketStream is the stream behind the bucket with the leases.
const BucketStream = kvStream

// CheckVersion says whether a nats-server of that version ("2.15.2") is [MinVersion] or later, as
// semantic versions go: a pre-release comes before its release, so that 2.12.8-RC.1 is too old and
// 2.13.0-RC.1 is not. What is no version is too old. Its error is a *[SetupError].
func CheckVersion(version string) error {
	if semver.Compare("v"+strings.TrimPrefix(version, "v"), "v"+MinVersion) >= 0 {
		return nil
	}
	return &SetupError{fmt.Errorf("the NATS server is version %s, and rollcall needs %s or later: upgrade it, and all servers of its cluster; "+
		"earlier ones refuse every commit but the first", version, MinVersion)}
}

// CheckPayload says whether a server that takes messages of so many bytes (max_payload) is of use;
// its error is a *[SetupError].
func CheckPayload(bytes int64) error {
	if bytes >= MinPayload {
		return nil
	}
	return &SetupError{fmt.Errorf("the NATS server takes messages of %d bytes at most, and rollcall needs %d: raise its max_payload "+
		"(1MB is the default), on all servers of its cluster", bytes, MinPayload)}
}

// Misfits names everything that keeps rollcall from using a stream of this configuration as the
// log; empty: it fits.
func Misfits(c jetstream.StreamConfig) []string { return misfits(c) }

// BucketMisfits is [Misfits] for the stream behind the bucket.
func BucketMisfits(c jetstream.StreamConfig) []string {
	if c.SubjectDeleteMarkerTTL <= 0 {
		return []string{"it has no limit marker TTL, so leases could not expire"}
	}
	return nil
}

// LeaseHolder says who polls a tenant.
type LeaseHolder struct {
	Instance string
	Since    time.Time // when it took the lease
}

// ParseLease reads the value of a lease's key. ok is false where nobody holds the lease: the key is
// empty, or a marker.
func ParseLease(value []byte) (h LeaseHolder, ok bool) {
	if len(value) == 0 {
		return h, false
	}
	var v holder
	if json.Unmarshal(value, &v) != nil || v.Instance == "" {
		v.Instance = "unknown"
	}
	return LeaseHolder{v.Instance, v.Since}, true
}

// A Need is a subject that rollcall must be allowed to publish on, as one example of its kind.
type Need struct {
	Subject string // without wildcards
	Allow   string // what a permission that covers all of the kind says
	Stream  string // set where the subject is stored: in the stream of that name
}

// Needs are the subjects that the log of a tenant takes, those that create stream and bucket only
// if manage.
func Needs(tenant int64, manage bool) []Need {
	const api, name = "$JS.API.", consumerPrefix + "check"
	log, lease := schemas.LogPrefix+">", fmt.Sprintf("$KV.%s.%s", schemas.Bucket, schemas.LeaseKey(tenant))
	needs := []Need{
		{Subject: publishSubject(schemas.WatermarkSubject(tenant)), Allow: log, Stream: schemas.Stream},
		{Subject: lease, Allow: "$KV." + schemas.Bucket + ".>", Stream: kvStream},
	}
	for _, s := range []string{schemas.Stream, kvStream} {
		for _, n := range [][2]string{
			{"STREAM.INFO." + s, "STREAM.INFO." + s},
			{"STREAM.MSG.GET." + s, "STREAM.MSG.GET." + s},
			{"CONSUMER.CREATE." + s + "." + name + "." + "x", "CONSUMER.CREATE." + s + ".>"},
			{"CONSUMER.DELETE." + s + "." + name, "CONSUMER.DELETE." + s + ".*"},
		} {
			needs = append(needs, Need{Subject: api + n[0], Allow: api + n[1]})
		}
		if manage {
			needs = append(needs, Need{Subject: api + "STREAM.CREATE." + s, Allow: api + "STREAM.CREATE." + s})
		}
	}
	if manage { // the client looks whether the server knows limit markers
		needs = append(needs, Need{Subject: api + "INFO", Allow: api + "INFO"})
	}
	next := api + "CONSUMER.MSG.NEXT." + schemas.Stream + "."
	get := api + "DIRECT.GET." + kvStream + "."
	return append(needs,
		Need{Subject: next + name, Allow: next + "*"},
		Need{Subject: get + lease, Allow: get + ">"})
}
