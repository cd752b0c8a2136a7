package main

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// An error that comes at every try is told when it is new and once a minute, with how often it came
// meanwhile; many different ones take no more memory than mostReports.
func TestRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r repeated
		told, untold := 0, 0
		const tries = 10 * 60 * 4 // ten minutes, four a second
		for i := range tries {
			refused := fmt.Errorf("read tcp 10.0.0.1:%d->10.0.0.2:4222: refused", 40000+i)
			if n, ok := r.worth(refused.Error()); ok {
				told++
				untold += n
			}
			time.Sleep(250 * time.Millisecond)
		}
		if told != 10 || told+untold > tries || told+untold < tries-60*4 {
			t.Errorf("of %d tries %d were told, and %d more told of", tries, told, untold)
		}
		if _, ok := r.worth("another reason"); !ok {
			t.Error("a new reason was not told")
		}
		for i := range 10 * mostReports {
			r.worth(fmt.Sprintf("reason %d", i))
		}
		if len(r.logged) > mostReports {
			t.Errorf("%d reasons are remembered", len(r.logged))
		}
	})
}
