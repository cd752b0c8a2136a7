package schemas

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Names in NATS.
const (
	Stream = "AGENT_EVENTS" // the one stream
	Bucket = "rollcall"     // the KV bucket with the leases

	// LogPrefix is where rollcall publishes: the stream stores rollcall.log.X as agent.X (a subject
	// transform).
	LogPrefix = "rollcall.log."
	// StoredPrefix begins every subject in the stream.
	StoredPrefix = "agent."

	// AlarmStream is where the NATS server keeps what it is to say when a watermark is overdue, and
	// AlarmPrefix begins its subjects.
	AlarmStream = "ROLLCALL_ALARM"
	AlarmPrefix = "rollcall.alarm."

	// QueryService is the name of the micro service that answers questions, and QueryPrefix begins
	// its subjects.
	QueryService = "rollcall"
	QueryPrefix  = "rollcall.query."

	// QueryRoster, QueryAgent and QueryCounts are the questions, the last token of the subject that
	// each is asked on.
	QueryRoster = "roster"
	QueryAgent  = "agent"
	QueryCounts = "counts"

	// NoType is the subject token of an agent whose type is missing or can't be a token.
	NoType = "_"
)

// Kind is the second token of a subject in the stream.
type Kind string

// The kinds of messages in the stream. The first three are events.
const (
	KindOnline    Kind = "online"
	KindOffline   Kind = "offline"
	KindUpdated   Kind = "updated"
	KindState     Kind = "state"
	KindWatermark Kind = "watermark"
	KindHealth    Kind = "health"
	// KindUnobserved is kept as long as events are; of the three above, the stream has the last.
	KindUnobserved Kind = "unobserved"
)

// Subject is a subject of the stream, taken apart.
type Subject struct {
	Kind    Kind
	Tenant  int64
	Type    string // of events: the agent's type as a token
	AgentID int64  // of events and states
}

// EventSubject is where an event is stored: agent.online.886.10.17813. typeToken is
// [Agent.TypeToken]'s.
func EventSubject(t EventType, tenant int64, typeToken string, agentID int64) string {
	return string(t) + "." + decimal(tenant) + "." + typeToken + "." + decimal(agentID)
}

// StateSubject is where an agent's state is stored: agent.state.886.17813.
func StateSubject(tenant, agentID int64) string {
	return "agent.state." + decimal(tenant) + "." + decimal(agentID)
}

// WatermarkSubject is where a tenant's watermark is stored: agent.watermark.886.
func WatermarkSubject(tenant int64) string { return "agent.watermark." + decimal(tenant) }

// HealthSubject is where a tenant's health is stored: agent.health.886.
func HealthSubject(tenant int64) string { return "agent.health." + decimal(tenant) }

// UnobservedSubject is where a tenant's unobserved intervals are stored: agent.unobserved.886.
func UnobservedSubject(tenant int64) string { return "agent.unobserved." + decimal(tenant) }

// EventFilters match every event of a tenant, and nothing else: agent.*.886.*.*. (agent.*.886.>
// would bring each change twice, as event and as state; see [ChangeFilter].) It is one filter:
// nats-server (2.15.2) needs twenty times as long to read by several a stream whose old states are
// gone.
func EventFilters(tenant int64) []string {
	return []string{"agent.*." + decimal(tenant) + ".*.*"}
}

// AgentEventFilter matches every event of one agent, whatever its type: agent.*.886.*.17813.
func AgentEventFilter(tenant, agentID int64) string {
	return fmt.Sprintf("agent.*.%d.*.%d", tenant, agentID)
}

// ChangeFilter matches every event and every state of a tenant: agent.*.886.>.
func ChangeFilter(tenant int64) string { return fmt.Sprintf("agent.*.%d.>", tenant) }

// StateFilter matches every agent's state: agent.state.886.*.
func StateFilter(tenant int64) string { return "agent.state." + decimal(tenant) + ".*" }

// WatermarkFilter matches the watermarks of all tenants.
const WatermarkFilter = "agent.watermark.*"

// StaleSubject is where the NATS server itself tells plain subscribers that a tenant's watermark is
// overdue: agent.stale.886. No stream stores it under this subject.
func StaleSubject(tenant int64) string { return "agent.stale." + strconv.FormatInt(tenant, 10) }

// AlarmArmedSubject is where the message that the server is to deliver waits, and AlarmFiredSubject
// where it is delivered to: rollcall.alarm.armed.886 and rollcall.alarm.fired.886. The stream
// republishes the latter as [StaleSubject].
func AlarmArmedSubject(tenant int64) string {
	return AlarmPrefix + "armed." + strconv.FormatInt(tenant, 10)
}

// AlarmFiredSubject is where the alarm is delivered to; see [AlarmArmedSubject].
func AlarmFiredSubject(tenant int64) string {
	return AlarmPrefix + "fired." + strconv.FormatInt(tenant, 10)
}

// QuerySubject is where a question about a tenant is asked, such as [QueryRoster]:
// rollcall.query.886.roster.
func QuerySubject(tenant int64, question string) string {
	return QueryPrefix + decimal(tenant) + "." + question
}

// LeaseKey is the key of a tenant's lease in the bucket: lease.886.
func LeaseKey(tenant int64) string { return "lease." + decimal(tenant) }

func decimal(id int64) string { return strconv.FormatInt(id, 10) }

// ParseSubject takes a stored subject apart.
func ParseSubject(s string) (Subject, error) {
	tokens := strings.Split(s, ".")
	if len(tokens) < 3 || tokens[0] != "agent" {
		return Subject{}, subjectError(s, errors.New("it is none of the stream's"))
	}
	p := Subject{Kind: Kind(tokens[1])}
	want := map[Kind]int{
		KindOnline: 5, KindOffline: 5, KindUpdated: 5, KindState: 4, KindWatermark: 3,
		KindHealth: 3, KindUnobserved: 3,
	}[p.Kind]
	if len(tokens) != want {
		return Subject{}, subjectError(s, errors.New("unknown kind, or a wrong number of tokens"))
	}
	var err error
	if p.Tenant, err = parseID(tokens[2]); err != nil {
		return Subject{}, subjectError(s, err)
	}
	if want == 5 {
		p.Type = tokens[3]
		if p.Type != NoType && !isTypeToken(p.Type) {
			return Subject{}, subjectError(s, errors.New("the type is no type token"))
		}
	}
	if want >= 4 {
		if p.AgentID, err = parseID(tokens[want-1]); err != nil {
			return Subject{}, subjectError(s, err)
		}
	}
	return p, nil
}

// parseID reads an id in the one form that rollcall writes: no plus sign, no leading zeros.
func parseID(s string) (int64, error) {
	v, err := strconv.ParseInt(s, 10, 64)
	if err == nil && strconv.FormatInt(v, 10) != s {
		err = fmt.Errorf("%q is not an id as rollcall writes it", s)
	}
	return v, err
}

func subjectError(s string, err error) error {
	return fmt.Errorf("schemas: parse subject %q: %w", s, err)
}

func isTypeToken(s string) bool {
	if len(s) < 1 || len(s) > 32 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
