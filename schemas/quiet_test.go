package schemas

import (
	"slices"
	"testing"
)

func TestQuiet(t *testing.T) {
	changes := []Change{{Field: "agentName"}, {Field: "lastUpdateDate"}, {Field: "mood"}}
	for _, tc := range []struct {
		name  string
		quiet Quiet
		want  []string
	}{
		{"nil is the default", nil, []string{"agentName"}},
		{"empty: none is quiet", Quiet{}, []string{"agentName", "lastUpdateDate", "mood"}},
		{"undocumented fields", Quiet{"*"}, []string{"agentName", "lastUpdateDate"}},
		{"named fields", Quiet{"agentName", "mood"}, []string{"lastUpdateDate"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, c := range tc.quiet.Significant(changes) {
				got = append(got, c.Field)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("significant are %q, want %q", got, tc.want)
			}
		})
	}
}
