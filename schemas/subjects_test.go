package schemas

import (
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestSubjects(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{EventSubject(Online, 886, "10", 17813), "agent.online.886.10.17813"},
		{EventSubject(Offline, 886, NoType, 17813), "agent.offline.886._.17813"},
		{EventSubject(Updated, 9007199254740993, "a-B-3", math.MaxInt64),
			"agent.updated.9007199254740993.a-B-3.9223372036854775807"},
		{StateSubject(886, 17813), "agent.state.886.17813"},
		{WatermarkSubject(886), "agent.watermark.886"},
		{HealthSubject(886), "agent.health.886"},
		{UnobservedSubject(886), "agent.unobserved.886"},
		{LeaseKey(886), "lease.886"},
		{Stream, "AGENT_EVENTS"},
		{Bucket, "rollcall"},
		{LogPrefix, "rollcall.log."},
	} {
		if tt.got != tt.want {
			t.Errorf("%s, want %s", tt.got, tt.want)
		}
	}
	e := Event{Type: Online, Data: EventData{Revision: 42, Agent: vendorAgent()}}
	if got, want := e.Subject(), "agent.online.886.10.17813"; got != want {
		t.Errorf("Subject = %s, want %s", got, want)
	}
	if got, want := e.ID(), "886-17813-42"; got != want {
		t.Errorf("ID = %s, want %s", got, want)
	}
}

func TestFilters(t *testing.T) {
	got := append(EventFilters(886), AgentEventFilter(886, 17813), ChangeFilter(886),
		StateFilter(886), WatermarkFilter)
	want := []string{"agent.*.886.*.*",
		"agent.*.886.*.17813", "agent.*.886.>", "agent.state.886.*", "agent.watermark.*"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestTypeToken(t *testing.T) {
	if got := (&Agent{}).TypeToken(); got != "_" {
		t.Errorf("no type: %q", got)
	}
	for in, want := range map[string]string{
		"0": "0", "10": "10", "-1": "-1", "Az-09": "Az-09", "-": "-",
		strings.Repeat("x", 32): strings.Repeat("x", 32),
		strings.Repeat("x", 33): "_",
		"":                      "_", "_": "_", "a_b": "_", " ": "_", "1 0": "_", "10.0": "_",
		"*": "_", ">": "_", "a.b": "_",
		"视频": "_", "é": "_", "a\x00": "_", "10\n": "_", "$SYS": "_",
	} {
		if got := (&Agent{Type: &in}).TypeToken(); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestParseSubject(t *testing.T) {
	for s, want := range map[string]Subject{
		"agent.online.886.10.17813": {Kind: KindOnline,
			Tenant: 886, Type: "10", AgentID: 17813},
		"agent.offline.886._.17813": {Kind: KindOffline,
			Tenant: 886, Type: "_", AgentID: 17813},
		"agent.updated.886.a-B.9223372036854775807": {Kind: KindUpdated,
			Tenant: 886, Type: "a-B", AgentID: math.MaxInt64},
		"agent.state.-9223372036854775808.-1": {Kind: KindState,
			Tenant: math.MinInt64, AgentID: -1},
		"agent.watermark.0": {Kind: KindWatermark},
		"agent.health.886": {Kind: KindHealth,
			Tenant: 886},
		"agent.unobserved.886": {Kind: KindUnobserved,
			Tenant: 886},
		"agent.online.886." + strings.Repeat("x", 32) +
			".17813": {Kind: KindOnline, Tenant: 886, Type: strings.Repeat("x", 32),
			AgentID: 17813},
		"agent.state.9007199254740993.9007199254740995": {Kind: KindState,
			Tenant: 9007199254740993, AgentID: 9007199254740995},
		"agent.updated.886.-.0": {Kind: KindUpdated,
			Tenant: 886, Type: "-"},
		"agent.online.9223372036854775807._.-9223372036854775808": {Kind: KindOnline,
			Tenant: math.MaxInt64, Type: "_", AgentID: math.MinInt64},
		StoredPrefix + strings.TrimPrefix("agent.state.1.2", "agent."): {Kind: KindState, Tenant: 1,
			AgentID: 2},
	} {
		if got, err := ParseSubject(s); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", s, got, err, want)
		}
	}
}

func TestParseSubjectRefuses(t *testing.T) {
	for _, s := range []string{
		"", ".", "..", "agent", "agent.", "agent..", "agent.online", "agent..886",
		"agent...886.17813",
		"rollcall.log.online.886.10.17813", "rollcall.log.state.886.1", "Agent.state.886.1",
		" agent.state.886.1",
		"agent.busy.886", "agent.busy.886.10.17813", "agent.Online.886.10.17813", "agent.lease.886",
		"agent.online.886.17813", "agent.online.886.10.17813.1", "agent.online.886..17813",
		"agent.online.886.1_0.17813", "agent.online.886.*.17813", "agent.online.886.>.17813",
		"agent.online.886.视.17813",
		"agent.online.886." + strings.Repeat("x", 33) + ".17813",
		"agent.online.*.10.17813", "agent.online.886.10.>", "agent.online.886.10.*",
		"agent.online.886.10.", "agent.online.886.10.x",
		"agent.state.886", "agent.state.886.", "agent.state..17813", "agent.state.886.17813.",
		"agent.state.886.17813 ",
		"agent.state.886.17813.1", "agent.state.x.17813", "agent.state.886.17813.0",
		"agent.state.886.1e3", "agent.state.886.0x1",
		"agent.state.+886.17813", "agent.state.886.+17813", "agent.state.0886.17813",
		"agent.state.886.-0", "agent.state.886.00",
		"agent.state.886.9223372036854775808", "agent.state.886.-9223372036854775809",
		"agent.state.8_86.1",
		"agent.watermark", "agent.watermark.", "agent.watermark.x", "agent.watermark.886.1",
		"agent.health.1.0", "agent.health.886.", "agent.unobserved.886.10",
	} {
		got, err := ParseSubject(s)
		if err == nil {
			t.Errorf("%q: parsed as %+v", s, got)
			continue
		}
		if got != (Subject{}) || !strings.Contains(err.Error(), "parse subject") {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
}

// build puts a parsed subject together again.
func build(p Subject) string {
	switch p.Kind {
	case KindState:
		return StateSubject(p.Tenant, p.AgentID)
	case KindWatermark:
		return WatermarkSubject(p.Tenant)
	case KindHealth:
		return HealthSubject(p.Tenant)
	default:
		return EventSubject(EventType("agent."+p.Kind), p.Tenant, p.Type, p.AgentID)
	}
}

func TestSubjectsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Subject{
			Kind: rapid.SampledFrom([]Kind{KindOnline, KindOffline, KindUpdated, KindState,
				KindWatermark, KindHealth}).
				Draw(t, "kind"),
			Tenant: rapid.Int64().Draw(t, "tenant"),
		}
		switch p.Kind {
		case KindOnline, KindOffline, KindUpdated:
			a := Agent{
				TenantID: p.Tenant,
				AgentID:  rapid.Int64().Draw(t, "agent"),
				Type:     optional(rapid.String()).Draw(t, "type"),
			}
			p.Type, p.AgentID = a.TypeToken(), a.AgentID
			e := Event{Type: EventType("agent." + p.Kind), Data: EventData{Agent: a}}
			if e.Subject() != build(p) {
				t.Fatalf("Subject = %s, want %s", e.Subject(), build(p))
			}
		case KindState:
			p.AgentID = rapid.Int64().Draw(t, "agent")
		}
		if got, err := ParseSubject(build(p)); err != nil || got != p {
			t.Fatalf("%s: %+v, %v, want %+v", build(p), got, err, p)
		}
	})
}
