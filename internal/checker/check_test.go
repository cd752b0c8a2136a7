package checker

import "testing"

func TestCorrectLog(t *testing.T) {
	w := lived(t)
	for name, log := range map[string]Log{
		"recorded and stored": {Live: w.live, Stored: stored(w.live)},
		"recorded":            {Live: w.live},
		"stored":              {Stored: stored(w.live)},
	} {
		for _, pages := range []bool{true, false} {
			r := Check(log, w.truth(pages), strict())
			if err := r.Err(); err != nil {
				t.Errorf("%s, pages %t: %v", name, pages, err)
			}
			t.Logf("%s, pages %t: %+v", name, pages, r.Stats)
		}
	}
}
