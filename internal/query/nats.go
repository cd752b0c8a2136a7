package query

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"golang.org/x/mod/semver"

	"github.com/rollcall-events/rollcall/schemas"
)

// A Need is a subject that answering takes the right for.
type Need struct {
	Subject string // without wildcards
	Allow   string // what a permission that covers all of the kind says
}

// Subscribes are the subjects that answering takes the right to subscribe to, one of each kind. The
// right to answer comes besides (allow_responses).
func Subscribes(tenant int64) []Need {
	return []Need{
		{schemas.QuerySubject(tenant, schemas.QueryRoster), schemas.QueryPrefix + ">"},
		{micro.APIPrefix + ".PING", micro.APIPrefix + ".>"},
	}
}

const (
	// Questions that wait for an answer; more than these are dropped, lest they fill the memory.
	mostWaiting      = 1000
	mostWaitingBytes = 4 << 20

	// strayQueue is the queue group of those who say what is wrong with a question that nobody
	// answers.
	strayQueue = schemas.QueryService + "-stray"
	// lookWithin is how long finding out who polls another tenant may take.
	lookWithin = time.Second
	// polledFor is for how long the answer is believed.
	polledFor = 10 * time.Second
)

// answers are what there is to ask.
var answers = []struct {
	name   string
	fields map[string]field
	answer func(*Service, context.Context, *request, int) (*reply, error)
}{
	{schemas.QueryRoster, ofRoster, (*Service).roster},
	{schemas.QueryAgent, ofAgent, (*Service).agent},
	{schemas.QueryCounts, ofCounts, (*Service).counts},
}

// Answer has questions in NATS answered, beside other replicas' in one queue group, until nc is
// drained or closed. Set nc's handlers before; its error handler is told what answering lacks.
func (s *Service) Answer(nc *nats.Conn) error {
	version := strings.TrimPrefix(s.cfg.Version, "v")
	if !semver.IsValid("v"+version) || strings.Count(version, ".") < 2 {
		version = "0.0.0" // of a build without a tag; the protocol wants one
	}
	metadata := map[string]string{"tenant": strconv.FormatInt(s.cfg.Tenant, 10)}
	if s.cfg.Instance != "" {
		metadata["instance"] = s.cfg.Instance
	}
	service, err := micro.AddService(nc, micro.Config{
		Name: schemas.QueryService, Version: version, Metadata: metadata,
		Description: fmt.Sprintf("who is on duty in tenant %d", s.cfg.Tenant),
	})
	for _, a := range answers {
		if err != nil {
			break
		}
		answer := func(m micro.Request) {
			if !mayAnswer(m.Reply()) {
				return
			}
			q, err := fromJSON(m.Data(), a.fields)
			if err != nil {
				err = &failure{code: badRequest, text: err.Error()}
			}
			var r *reply
			if err == nil {
				r, err = a.answer(s, context.Background(), q, int(nc.MaxPayload()))
			}
			respond(m, r, err)
		}
		err = service.AddEndpoint(a.name, micro.HandlerFunc(answer),
			micro.WithEndpointSubject(schemas.QuerySubject(s.cfg.Tenant, a.name)),
			micro.WithEndpointQueueGroup(schemas.QueryService),
			micro.WithEndpointPendingLimits(mostWaiting, mostWaitingBytes))
	}
	if err != nil {
		return fmt.Errorf("query: answer questions about tenant %d: %w", s.cfg.Tenant, err)
	}
	return nil
}

// Refuse says what is wrong with a question that nobody answers: of a tenant that nobody polls, or
// of no form that there is. All questions come to it, and it leaves out those that have an
// endpoint. Of the replicas of whatever tenant, one refuses. nc must be another connection than
// Answer's: of a message that a connection gets twice, the server counts one answer as two, and
// allow_responses lets it send one.
func (s *Service) Refuse(nc *nats.Conn) error {
	sub, err := nc.QueueSubscribe(schemas.QueryPrefix+">", strayQueue, s.strays())
	if err == nil {
		err = sub.SetPendingLimits(mostWaiting, mostWaitingBytes)
	}
	if err != nil {
		return fmt.Errorf("query: refuse questions that nobody answers: %w", err)
	}
	return nil
}

func (s *Service) strays() nats.MsgHandler {
	polled := map[int64]time.Time{} // until when it is believed that somebody polls a tenant
	return func(m *nats.Msg) {
		asked, question, _ := strings.Cut(strings.TrimPrefix(m.Subject, schemas.QueryPrefix), ".")
		tenant, err := strconv.ParseInt(asked, 10, 64)
		isTenant := err == nil && strconv.FormatInt(tenant, 10) == asked
		isQuestion := slices.Contains(
			[]string{schemas.QueryRoster, schemas.QueryAgent, schemas.QueryCounts}, question)
		if m.Reply == "" || !mayAnswer(m.Reply) ||
			isTenant && isQuestion && tenant == s.cfg.Tenant {
			return
		}
		if isTenant && tenant != s.cfg.Tenant && s.cfg.Polled != nil {
			if time.Now().Before(polled[tenant]) {
				return // those who poll it answer
			}
			ctx, cancel := context.WithTimeout(context.Background(), lookWithin)
			defer cancel()
			there, err := s.cfg.Polled(ctx, tenant)
			if err != nil {
				return // not known: who asks may be answered by them
			}
			if there {
				polled[tenant] = time.Now().Add(polledFor)
				return
			}
		}
		text := fmt.Sprintf("nobody polls tenant %s: here it is tenant %d",
			shown(asked), s.cfg.Tenant)
		if !isTenant || tenant == s.cfg.Tenant {
			text = fmt.Sprintf("there is no question %s", shown(m.Subject))
		}
		of := s.cfg.Tenant
		refusal := nats.NewMsg(m.Reply)
		refusal.Header.Set(micro.ErrorCodeHeader, strconv.Itoa(badRequest))
		refusal.Header.Set(micro.ErrorHeader, fmt.Sprintf("%s; ask on %s, %s or %s", text,
			schemas.QuerySubject(of, schemas.QueryRoster),
			schemas.QuerySubject(of, schemas.QueryAgent),
			schemas.QuerySubject(of, schemas.QueryCounts)))
		_ = m.RespondMsg(refusal) // as in respond
	}
}

// mayAnswer refuses to send answers where rollcall may publish and who asks may not: into the
// stream, to its readers, to the API. (Across accounts the server sees to that itself.)
func mayAnswer(to string) bool {
	return !slices.ContainsFunc([]string{"rollcall.", schemas.StoredPrefix, "$"},
		func(prefix string) bool { return strings.HasPrefix(to, prefix) })
}

// respond sends the answer. Who asked and has gone is nobody to be told of a failure, and one that
// NATS reports later goes to the connection's error handler.
func respond(m micro.Request, r *reply, err error) {
	if f := (*failure)(nil); errors.As(err, &f) {
		var as []byte
		if f.as != nil {
			as = slices.Concat(f.as.parts...)
		}
		_ = m.Error(strconv.Itoa(f.code), f.text, as)
		return
	}
	_ = m.Respond(slices.Concat(r.parts...))
}
