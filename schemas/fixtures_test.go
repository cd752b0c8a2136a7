package schemas

import (
	"bytes"
	"testing"
)

// Each golden is a fixture, on the subject that it would be stored on.
func TestFixtures(t *testing.T) {
	files, all := readGoldens(t, ""), Fixtures()
	if len(all)+len(unpublished) != len(files) {
		t.Errorf("%d fixtures of %d goldens", len(all), len(files))
	}
	loose := func(body []byte) bool { // what PostgreSQL's jsonb refuses, for one
		return bytes.Contains(body, []byte(`\u0000`)) || bytes.Contains(body, []byte(`\ud800 `))
	}
	for _, name := range unpublished {
		if !loose(files[name]) {
			t.Errorf("%s could be a fixture", name)
		}
	}
	for _, f := range all {
		if !bytes.Equal(f.Body, files[f.Name]) || loose(f.Body) {
			t.Errorf("%s is not the golden of that name: %s", f.Name, f.Body)
		}
		s, err := ParseSubject(f.Subject)
		if err != nil {
			t.Errorf("%s: %v", f.Name, err)
			continue
		}
		var want string
		switch s.Kind {
		case KindWatermark:
			want = WatermarkSubject(s.Tenant)
		case KindHealth:
			want = HealthSubject(s.Tenant)
		case KindUnobserved:
			want = UnobservedSubject(s.Tenant)
		default:
			var e Event
			if err := e.UnmarshalJSON(f.Body); err != nil {
				t.Error(err)
			}
			want = EventSubject(e.Type, e.Data.Agent.TenantID, e.Data.Agent.TypeToken(), s.AgentID)
			if f.ContentType != ContentTypeEvent {
				t.Errorf("%s: Content-Type %s", f.Name, f.ContentType)
			}
		}
		if f.Subject != want {
			t.Errorf("%s is on %s, want %s", f.Name, f.Subject, want)
		}
	}
}
