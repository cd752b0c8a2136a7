package publisher

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/schemas"
)

// BucketStream is the stream behind the bucket with the leases.
const BucketStream = "KV_" + schemas.Bucket

const (
	askAgain = time.Second // before a question that was not answered is asked again
	// ackTimeout is for one answer of the server.
	ackTimeout = 5 * time.Second
)

// A Reader reads the stream, and the bucket with the leases, and changes nothing. A [Publisher]
// reads through one itself, so whoever looks from outside sees what a start would see. Its methods
// may be called from any goroutine.
type Reader struct {
	nc  *nats.Conn
	js  jetstream.JetStream
	cfg Config
	log *slog.Logger
}

// NewReader returns a reader of what nc is connected to. Without a tenant in cfg (0), Status leaves
// out what only a tenant has, and the methods that read a tenant's messages must not be called.
func NewReader(nc *nats.Conn, cfg Config) *Reader {
	js, _ := jetstream.New(nc) // fails on options only, of which there are none
	r := &Reader{nc: nc, js: js, cfg: cfg, log: cfg.Logger}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	return r
}

// Status is what a look at the server showed. It says nothing about whether commits succeed. What
// is missing fits where Config.Manage lets rollcall create it.
type Status struct {
	// Stream is why the server or the stream is not what rollcall needs, or can't be asked; nil:
	// they fit.
	Stream error
	// Lease is why the bucket or the lease in it is not; nil: this replica leads, or could.
	Lease error

	Leader    string             // who holds the lease; empty: nobody, or not known
	Watermark *schemas.Watermark // nil: there is none that can be read
	Health    *schemas.Health    // nil: there is none that can be read
}

// Status asks the server for all of it.
func (r *Reader) Status(ctx context.Context) Status {
	var s Status
	stream, err := r.Stream(ctx)
	if s.Stream = err; err == nil && stream != nil && r.cfg.Tenant != 0 {
		s.Watermark, _, _ = r.Watermark(ctx)
		s.Health, _, _ = r.Health(ctx)
	}
	bucket, err := r.Bucket(ctx)
	if s.Lease = err; err == nil && bucket != nil && r.cfg.Tenant != 0 {
		var h Holder
		h, _, s.Lease = r.Lease(ctx)
		s.Leader = h.Instance
	}
	return s
}

// Stream looks at the server and at the stream. Both are nil where the stream does not exist and
// Config.Manage lets rollcall create it. Where one of them is not what rollcall needs, the error is
// a *[SetupError].
func (r *Reader) Stream(ctx context.Context) (*jetstream.StreamInfo, error) {
	if err := r.checkServer(); err != nil {
		return nil, err
	}
	return r.look(ctx, "stream "+schemas.Stream, schemas.Stream, misfits)
}

// Bucket is [Reader.Stream] for the stream behind the bucket; it does not look at the server.
func (r *Reader) Bucket(ctx context.Context) (*jetstream.StreamInfo, error) {
	return r.look(ctx, "bucket "+schemas.Bucket, BucketStream,
		func(c jetstream.StreamConfig) []string { return bucketMisfits(c, r.cfg.LeaseTTL) })
}

func (r *Reader) look(
	ctx context.Context, what, name string, misfits func(jetstream.StreamConfig) []string,
) (*jetstream.StreamInfo, error) {
	s, err := r.js.Stream(ctx, name)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound) && r.cfg.Manage:
		return nil, nil
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, &SetupError{fmt.Errorf("%s does not exist", what),
			"create it, or let rollcall do so ({Manage}=true)"}
	case err != nil:
		return nil, explain(fmt.Errorf("open %s: %w", what, err))
	}
	info := s.CachedInfo()
	if bad := misfits(info.Config); len(bad) > 0 {
		return info, &SetupError{
			fmt.Errorf("%s does not fit, and rollcall never alters it: %s",
				what, strings.Join(bad, "; ")),
			"mend it, or remove it if it isn't rollcall's",
		}
	}
	return info, nil
}

// checkServer says whether the server that the connection is with now can hold the stream: another
// one, or an older one in its place, may have come with a reconnect.
func (r *Reader) checkServer() error {
	version := r.nc.ConnectedServerVersion()
	if version == "" { // that it can't be told is no reason to give up
		return nats.ErrDisconnected
	}
	if err := cmp.Or(CheckVersion(version), CheckPayload(r.nc.MaxPayload())); err != nil {
		return fmt.Errorf("%s: %w", r.nc.ConnectedAddr(), err)
	}
	return nil
}

// A Message is one that a stream holds.
type Message struct {
	Subject string    `json:"subject"`
	Seq     uint64    `json:"seq"`
	Header  []byte    `json:"hdrs"`
	Data    []byte    `json:"data"`
	Time    time.Time `json:"time"` // when it was stored, by the server's clock
}

// Watermark reads the tenant's watermark. Both results are nil where there is none; w alone is nil
// where what stands in its place can't be read.
func (r *Reader) Watermark(ctx context.Context) (w *schemas.Watermark, m *Message, err error) {
	m, err = r.last(ctx, schemas.Stream, schemas.WatermarkSubject(r.cfg.Tenant))
	if err != nil {
		return nil, nil, fmt.Errorf("read the watermark of tenant %d: %w", r.cfg.Tenant, err)
	}
	if m != nil {
		w, _ = decodeWatermark(m.Data, r.cfg.Tenant)
	}
	return w, m, nil
}

// Health reads the tenant's last health message, as [Reader.Watermark] does.
func (r *Reader) Health(ctx context.Context) (h *schemas.Health, m *Message, err error) {
	m, err = r.last(ctx, schemas.Stream, schemas.HealthSubject(r.cfg.Tenant))
	if err != nil {
		return nil, nil, fmt.Errorf("read the health of tenant %d: %w", r.cfg.Tenant, err)
	}
	if m != nil {
		h, _ = decodeHealth(m.Data, r.cfg.Tenant)
	}
	return h, m, nil
}

// Lease says who holds the tenant's lease, and the sequence that says so; 0: nobody holds it.
func (r *Reader) Lease(ctx context.Context) (Holder, uint64, error) {
	m, err := r.last(ctx, BucketStream, leaseSubject(r.cfg.Tenant))
	if err != nil {
		return Holder{}, 0, fmt.Errorf("look who holds the lease: %w", plain(err))
	}
	if m == nil || len(m.Data) == 0 { // no key, or a marker: given up, or expired
		return Holder{}, 0, nil
	}
	var h Holder
	if json.Unmarshal(m.Data, &h) != nil || h.Instance == "" {
		h.Instance = "unknown"
	}
	return h, m.Seq, nil
}

// maxSweep is a number that no sweep reaches.
const maxSweep = 1 << 53

// decodeWatermark reads a watermark, and refuses what rollcall would not have written.
func decodeWatermark(data []byte, tenant int64) (*schemas.Watermark, error) {
	var w schemas.Watermark
	if err := json.Unmarshal(data, &w); err != nil {
		return nil, err
	}
	complete := w.Sweep > 0
	switch {
	case w.TenantID != tenant:
		return nil, errors.New("it is another tenant's")
	case w.Commit.ID == "" || w.Commit.Messages < 1:
		return nil, errors.New("it names no commit")
	case w.LastSweep() > maxSweep:
		return nil, errors.New("there can't have been so many sweeps")
	case w.StartedAt.IsZero() == complete || w.CompletedAt.IsZero() == complete ||
		w.StaleAfter.IsZero() == complete:
		return nil, errors.New("it lacks times, or has some before any complete sweep")
	}
	return &w, nil
}

func decodeHealth(data []byte, tenant int64) (*schemas.Health, error) {
	var h schemas.Health
	if err := json.Unmarshal(data, &h); err != nil {
		return nil, err
	}
	if h.TenantID != tenant {
		return nil, errors.New("it is another tenant's")
	}
	return &h, nil
}

// last reads the last message of a subject; nil: there is none.
func (r *Reader) last(ctx context.Context, stream, subject string) (*Message, error) {
	return r.get(ctx, stream, map[string]any{"last_by_subj": subject})
}

// at reads the message with that sequence; nil: there is none.
func (r *Reader) at(ctx context.Context, seq uint64) (*Message, error) {
	return r.get(ctx, schemas.Stream, map[string]any{"seq": seq})
}

// next reads the first message from a sequence on whose subject fits the filter; nil: there is
// none.
func (r *Reader) next(ctx context.Context, seq uint64, filter string) (*Message, error) {
	return r.get(ctx, schemas.Stream, map[string]any{"seq": seq, "next_by_subj": filter})
}

// get asks a stream's leader for one message; nil: the leader says that there is none. (The
// client's own GetMsg would use direct get, which any replica answers, lagging ones too.) It proves
// presence, never absence: somebody who has just lost the leadership may answer.
func (r *Reader) get(ctx context.Context, stream string, request map[string]any) (*Message, error) {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	m, err := r.ask(ctx, "$JS.API.STREAM.MSG.GET."+stream, body)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message *Message            `json:"message"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return nil, fmt.Errorf("decode the server's answer: %w", err)
	}
	switch {
	case answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return nil, nil
	case answer.Error != nil:
		return nil, answer.Error
	case answer.Message == nil:
		return nil, errors.New("the server's answer has no message")
	}
	return answer.Message, nil
}

// ask sends a request again every askAgain until it is answered or ctx ends: what a stream is asked
// while it has no leader is never answered.
func (r *Reader) ask(ctx context.Context, subject string, body []byte) (*nats.Msg, error) {
	inbox := r.nc.NewInbox()
	sub, err := r.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	for {
		if err := r.nc.PublishRequest(subject, inbox, body); err != nil {
			return nil, err
		}
		wait, cancel := context.WithTimeout(ctx, askAgain)
		m, err := sub.NextMsgWithContext(wait)
		cancel()
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return m, err
		}
	}
}
