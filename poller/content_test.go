package poller

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-events/rollcall/internal/isdpsim"
)

// A page that is, byte for byte, what it was is handed over undecoded, and shows all the same what it would show decoded.
func TestUnchangedPages(t *testing.T) {
	sim := isdpsim.New(isdpsim.Config{Agents: 120})
	p := served(t, sim, func(c *Config) { c.RateLimit = 1000 })
	ids := sim.IDs()
	for _, id := range ids[:3] {
		sim.Edit(id, isdpsim.Fields{"areaName": "{}"})
	}
	sim.Edit(ids[10], isdpsim.Fields{"onlineStatus": `"?"`})
	var contents [][3]uint64
	sweep := func() (Verdict, []*Page) {
		v, pages := sweepOnce(t, p)
		if !v.Complete || v.Agents != 119 || v.Rejected != 1 || v.Dropped != 3 || v.Pages != 3 {
			t.Fatalf("%+v", v)
		}
		var of [3]uint64
		for _, page := range pages {
			of[page.Number] = page.Content
		}
		contents = append(contents, of)
		return v, pages
	}
	_, first := sweep()
	_, again := sweep()
	byNumber := make(map[int]*Page)
	for _, page := range first {
		byNumber[page.Number] = page
		if len(page.Known) > 0 || len(page.Agents) == 0 {
			t.Errorf("page %d, read for the first time: %d known, %d decoded", page.Number, len(page.Known), len(page.Agents))
		}
	}
	for _, page := range again {
		was := byNumber[page.Number]
		if len(page.Agents) > 0 || len(page.Known) != len(was.Agents) {
			t.Errorf("page %d: %d agents decoded, %d known", page.Number, len(page.Agents), len(page.Known))
		}
		if d := cmp.Diff(was.Agents, page.Decode()); d != "" || !cmp.Equal(was.Rejected, page.Rejected) || was.Dropped != page.Dropped {
			t.Errorf("page %d shows something else: %s", page.Number, d)
		}
		page.Release()
		page.Release()
	}
	sim.Edit(ids[0], isdpsim.Fields{"agentName": `"somebody else"`})
	_, changed := sweep()
	for _, page := range changed {
		if decoded := len(page.Agents) > 0; decoded != (page.Number == 0) {
			t.Errorf("page %d: %d agents decoded", page.Number, len(page.Agents))
		}
	}
	if contents[0] != contents[1] || contents[2][0] == contents[0][0] || contents[2][1] != contents[0][1] {
		t.Errorf("contents %v", contents)
	}
}

// What an agent holds stays as it is when the answer's memory is used again.
func TestBodiesAreUsedAgain(t *testing.T) {
	var b buffers
	read := func(s string) []byte {
		body, err := b.read(strings.NewReader(s), int64(len(s)))
		if err != nil || string(body) != s {
			t.Fatalf("read %q, %v", body, err)
		}
		return body
	}
	row := `{"stateCode":"0","result":{"total_count":1,"data":[{"agentId":1,"onlineStatus":1,"agentName":"one","x":{"y":1}}]}}`
	body := read(row)
	p := Page{body: body, size: 50, Known: []int64{1}, maxRow: 1000}
	got := p.Decode()
	want := string(got[0].AppendJSON(nil))
	b.give(body)
	for i := range body {
		body[i] = '#'
	}
	if s := string(got[0].AppendJSON(nil)); s != want {
		t.Errorf("%s has become %s", want, s)
	}
	for n := range 10 { // longer and shorter ones
		b.give(read(strings.Repeat("x", 1000*(n%3))))
	}
}
