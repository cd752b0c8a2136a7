package poller

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-events/rollcall/internal/isdpsim"
	"github.com/rollcall-events/rollcall/schemas"
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
		if want := counts(page.Number == 0); len(page.Agents) != want || len(page.Known) != len(byNumber[page.Number].Agents)-want {
			t.Errorf("page %d: %d agents decoded, %d known", page.Number, len(page.Agents), len(page.Known))
		}
		if (page.Before == page.Content) != (page.Number != 0) || page.Before != contents[1][page.Number] {
			t.Errorf("page %d: content %d before %d", page.Number, page.Content, page.Before)
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
	want := encoded(got[0])
	b.give(body)
	for i := range body {
		body[i] = '#'
	}
	if s := encoded(got[0]); s != want {
		t.Errorf("%s has become %s", want, s)
	}
	for n := range 10 { // longer and shorter ones
		b.give(read(strings.Repeat("x", 1000*(n%3))))
	}
}

func encoded(p schemas.Packed) string { return string(new(p.Agent()).AppendJSON(nil)) }

// For any two answers, one after the other: what is read of the second by way of the first is what is read of it alone, in the
// plain way.
func FuzzShortCuts(f *testing.F) {
	page := func(rows ...string) []byte {
		return fmt.Appendf(nil, `{"stateCode":"0","errorMessage":null,"result":{"pos":0,"total_count":%d,"data":[%s],"entityName":null}}`, len(rows), strings.Join(rows, ","))
	}
	one, two, other := `{"agentId":1,"onlineStatus":1,"agentName":"a"}`, `{"agentId":"2","onlineStatus":0,"x":[1,{}],"areaName":{}}`, `{"agentId":1,"onlineStatus":0}`
	f.Add(page(one, two), page(one, two))
	f.Add(page(one, two), page(two, one))
	f.Add(page(one, two), page(one, one))
	f.Add(page(one, one), page(one, other))
	f.Add(page(one, other), page(one, other))
	f.Add(page(one, `{"agentId":3}`, two), page(`{"agentId":3}`, two, other))
	f.Add(page(one, two), page(one, two[:20]))
	f.Add(page(one), []byte(`{"stateCode":"0","result":{"data":[],"total_count":1,"DATA":[{"agentId":1,"onlineStatus":1}]}}`))
	f.Add(page(one), []byte(`{"stateCode":"0","result":{"data":[1],"total_count":1},"result":{"data":[{"agentId":1,"onlineStatus":1}]}} `))
	f.Add(page(one), []byte(`{"stateCode":"0","re\u0073ult":{"total_count":1,"data":[{"agentId":1,"agentId":2,"onlineStatus":1,"x":1,"\u0078":2,"ÿ":"ÿ"}]},"x":{"data":[]}}`))
	f.Add(page(one), []byte(`<html>`))
	f.Add(page(one, two), []byte(`{"stateCode":"0","result":{"total_count":2,"data":[`+one+`;`+two+`]}}`))
	f.Add(page(one), page(strings.Replace(one, "1", "7", 1)))
	f.Add(page(`{"agentId":1,"onlineStatus":1,"agentName":"a","areaName":"b"}`), page(`{"agentId":1,"onlineStatus":1,"areaName":"a","agentName":"b"}`))
	f.Add(page(`{"agentId":1,"agentSignInDate":1}`), page(`{"agentId":1,"agentSignInDate":2}`))
	f.Add(page(`{"agentId":1,"onlineStatus":1,"creationDate":1}`), page(`{"agentId":1,"onlineStatus":1,"creationDate":253402300800000}`))
	stamped := `{"agentId":1,"onlineStatus":1,"agentSignInDate":%s,"creationDate":%s,"cityId":%s,"capacity":%s,"x":%s}`
	for _, v := range []string{`5`, `99999999999999`, `253402300800000`, `-1`, `1.5`, `"5"`, `null`, `{}`, `5,"x":5`, `5,"agentSignInDate":{}`} {
		f.Add(page(fmt.Sprintf(stamped, "1", "2", "3", "4", "5")), page(fmt.Sprintf(stamped, v, v, v, v, v)))
		f.Add(page(fmt.Sprintf(stamped, "1", "2", "3", "4", "5")), page(fmt.Sprintf(stamped, v, "7", "8", "9", "5")))
	}
	f.Add(page(one, two), []byte(`{"stateCode":"0","result":{"total_count":2,"data":[ `+one+` , `+two+` ,]}}`))
	f.Add(page(one, two), []byte(`{"stateCode":"0","result":{"total_count":2,"data":[`+one+two+`]}}`))
	f.Add(page(one, two), []byte(`{"stateCode":"0","result":{"total_count":2,"data":[,`+one+`]}}`))
	f.Add(page(one, two), []byte(`{"stateCode":"0","result":{"total_count":2,"data":[`+one+`x]}}`))
	f.Add(page(one, two), []byte(`{"stateCode":"0","result":{"total_count":2,"data":[`+one+`]}}]`))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		const tenant, maxRow, size = 886, 600, 50
		quiet := quietFields([]string{"agentSignInDate", "capacity", "creationDate", "cityId", "agentId", "x", "*"})
		var last *content
		read := func(body []byte) (*Page, []schemas.Packed) {
			got := &Page{body: body, size: size, tenant: tenant, maxRow: maxRow, quiet: quiet}
			now, gotErr := got.open(last, plainExcerpt)
			a, err := decodeAnswer(body, 0, size, plainExcerpt)
			if fmt.Sprint(gotErr) != fmt.Sprint(err) {
				t.Fatalf("error %v, the plain way %v", gotErr, err)
			}
			if err != nil {
				return nil, nil
			}
			plain := &Page{}
			plainRows(plain, a.rows, tenant, maxRow)
			if d := cmp.Diff(plain.Agents, got.Decode()); d != "" {
				t.Fatalf("decoded (-plain way +short cut):\n%s", d)
			}
			if d := cmp.Diff(plain.Rejected, got.Rejected); d != "" || plain.Dropped != got.Dropped {
				t.Fatalf("dropped %d, the plain way %d; rejected:\n%s", got.Dropped, plain.Dropped, d)
			}
			var ids, seen []int64
			unknown := 0
			for i := range plain.Agents {
				ids = append(ids, plain.Agents[i].AgentID())
			}
			for _, r := range plain.Rejected {
				unknown += counts(!r.Known)
			}
			want := said{total: a.total, pos: a.pos, rows: len(a.rows), ids: ids, rejected: len(plain.Rejected), unidentified: unknown, dropped: plain.Dropped}
			if s := now.said; s.total != want.total || s.pos != want.pos || s.rows != want.rows || !slices.Equal(s.ids, want.ids) ||
				s.rejected != want.rejected || s.unidentified != want.unidentified || s.dropped != want.dropped {
				t.Fatalf("%+v, the plain way %+v", s, want)
			}
			for i := range got.Agents {
				seen = append(seen, got.Agents[i].AgentID())
			}
			if seen = append(seen, got.Known...); !slices.Equal(slices.Sorted(slices.Values(seen)), slices.Sorted(slices.Values(ids))) {
				t.Fatalf("known and decoded %v, on the page %v", seen, ids)
			}
			for _, id := range got.Known {
				if n := slices.Index(seen, id); slices.Contains(seen[n+1:], id) {
					t.Fatalf("agent %d is known, and there twice: %v", id, seen)
				}
			}
			last = now
			return got, plain.Agents
		}
		_, before := read(first)
		if _, rows, err := readAnswer(first, 0, size, nil, plainExcerpt); err == nil {
			for i, r := range rows { // as though they had changed once before
				var fields schemas.Row
				if takeApart(r.raw, &fields) == nil {
					last.rows[i].loud = loud(&fields, quiet)
				}
			}
		}
		got, after := read(second)
		if got == nil {
			return
		}
		find := func(in []schemas.Packed, id int64) schemas.Packed {
			return in[slices.IndexFunc(in, func(p schemas.Packed) bool { return p.AgentID() == id })]
		}
		for _, id := range got.Known {
			for name := range find(before, id).Differing(find(after, id)) {
				if !quiet[name] || slices.Contains([]string{"agentId", "x"}, name) {
					t.Fatalf("agent %d counts as the same, and %s is not", id, name)
				}
			}
		}
	})
}

// plainRows is decodeRows without a short cut.
func plainRows(p *Page, rows []json.RawMessage, tenant int64, maxBytes int) {
	for i, row := range rows {
		a, dropped, err := schemas.DecodeAgent(row, tenant)
		if err == nil && len(a.AppendJSON(nil)) > maxBytes {
			err = &schemas.RowError{Reason: schemas.RejectSize, AgentID: a.AgentID, HasID: true}
		}
		if bad, ok := err.(*schemas.RowError); ok {
			p.Rejected = append(p.Rejected, Rejection{Index: i, AgentID: bad.AgentID, Known: bad.HasID, Reason: bad.Reason})
			continue
		}
		p.Agents, p.Dropped = append(p.Agents, a.Pack()), p.Dropped+dropped
	}
}

// Whatever is nested deeper than encoding/json allows, to the very level, is refused here too.
func TestDepth(t *testing.T) {
	for _, depth := range []int{9994, 9995, 9996, 9997, 9998, 9999, 10_000, 10_001} {
		nested := strings.Repeat("[", depth) + strings.Repeat("]", depth)
		row := `{"agentId":1,"onlineStatus":1,"x":` + nested + `}`
		body := []byte(`{"stateCode":"0","result":{"total_count":1,"data":[` + row + `]}}`)
		_, err := decodeAnswer(body, 0, 50, plainExcerpt)
		_, rows, gotErr := readAnswer(body, 0, 50, nil, plainExcerpt)
		if (err == nil) != (gotErr == nil) || err == nil && len(rows) != 1 {
			t.Errorf("depth %d: %v, the plain way %v", depth, gotErr, err)
		}
		_, _, err = schemas.DecodeAgent([]byte(row), 886)
		if gotErr := takeApart([]byte(row), new(schemas.Row)); fmt.Sprint(err) != fmt.Sprint(gotErr) {
			t.Errorf("row of depth %d: %v, the plain way %v", depth, gotErr, err)
		}
	}
}

func BenchmarkDecodeRow(b *testing.B) {
	sim := isdpsim.New(isdpsim.Config{Agents: 1})
	row := sim.NewRow(1)
	var fields schemas.Row
	b.SetBytes(int64(len(row)))
	for _, bc := range []struct {
		name   string
		decode func(row []byte, tenant int64) error
	}{
		{"short", func(row []byte, tenant int64) error {
			if err := takeApart(row, &fields); err != nil {
				return err
			}
			_, _, err := fields.Pack(tenant)
			return err
		}},
		{"plain", func(row []byte, tenant int64) error { _, _, err := schemas.DecodeAgent(row, tenant); return err }},
	} {
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := bc.decode(row, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A sign-in duration that grows with every answer has a row decoded twice, and then no more.
func TestQuietNumbers(t *testing.T) {
	sim := isdpsim.New(isdpsim.Config{Agents: 60})
	p := served(t, sim, func(c *Config) { c.RateLimit, c.Quiet = 1000, []string{"agentSignInDate", "onlineStatus", "*"} })
	id := sim.IDs()[3]
	for n, want := range []int{60, 1, 0, 0, 1, 0} {
		status := counts(n >= 4)
		sim.Edit(id, isdpsim.Fields{"agentSignInDate": fmt.Sprint(1000 + n), "onlineStatus": fmt.Sprint(status), "lastUpdateTimestamp": "1", "lastUpdateDate": "1"})
		v, pages := sweepOnce(t, p)
		wantAll(t, sim, v, pages)
		decoded := 0
		for _, page := range pages {
			decoded += len(page.Agents)
			for _, packed := range page.Decode() {
				a := packed.Agent()
				if a.AgentID == id && (*a.AgentSignInDate != int64(1000+n) || a.OnlineStatus != int64(status)) {
					t.Errorf("sweep %d: signed in for %d, status %d", n, *a.AgentSignInDate, a.OnlineStatus)
				}
			}
		}
		if decoded != want {
			t.Errorf("sweep %d: %d rows decoded, want %d", n, decoded, want)
		}
	}
}
