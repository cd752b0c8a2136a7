package schemas

import (
	"testing"
	"time"
)

func BenchmarkEventAppendJSON(b *testing.B) {
	e := Event{Type: Online, Time: time.UnixMilli(1_800_000_000_000), Data: EventData{Revision: 1, Since: time.UnixMilli(1_800_000_000_000), Agent: *filled()}}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = e.AppendJSON(buf[:0])
	}
}
