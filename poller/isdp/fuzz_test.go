package isdp

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/unicode"
)

// damageRows are the rows of the answers that FuzzAnswer damages.
var damageRows = [][]string{
	{plainRow(1), plainRow(2), plainRow(3)},
	{
		`{"agentId":11,"onlineStatus":1,"agentName":"张三\\","areaName":null,"x":[{"agentId":12,` +
			`"y":"},{"}]}`,
		` {"agentName" : "a\tb", "agentId" : "12", "onlineStatus":"0", "capacity":{}, ` +
			`"龙":"\ud83d\ude00"} `,
		`{"onlineStatus":0,"agentId":9007199254740993,"type":10,"creationDate":1616486694000,` +
			`"z":1e5}`,
		`{"agentId":14,"onlineStatus":1}`,
	},
	{`{"agentId":21,"onlineStatus":0,"agentName":"` + strings.Repeat("王五", 20) + `"}`},
}

// A damagedAnswer is an answer while it is being damaged. Of each byte it knows what it was a part
// of: a row, by its index, or -1 for the rest.
type damagedAnswer struct {
	body    []byte
	of      []int
	touched map[int]bool
}

func undamaged(rows []string) *damagedAnswer {
	a := &damagedAnswer{touched: make(map[int]bool)}
	whole := answerOf(rows...)
	at := strings.Index(whole, "[") + 1
	a.body, a.of = []byte(whole), make([]int, len(whole))
	for i := range a.of {
		a.of[i] = -1
	}
	for row, text := range rows {
		inner := strings.TrimSpace(text)
		begin := at + strings.Index(text, inner)
		for i := begin; i < begin+len(inner); i++ {
			a.of[i] = row
		}
		at += len(text) + 1
	}
	return a
}

// replace puts something in the place of the bytes from one place to another.
func (a *damagedAnswer) replace(from, to int, with []byte) {
	within := -1 // the row that an insertion is inside of
	if from == to && from > 0 && from < len(a.of) && a.of[from] == a.of[from-1] {
		within = a.of[from]
	}
	for _, row := range a.of[from:to] {
		a.touched[row] = true
	}
	if from == to && within >= 0 {
		a.touched[within] = true
	} else if from == to {
		a.touched[-1] = a.touched[-1] || from == 0 || from >= len(a.of) || a.of[from] < 0 &&
			a.of[from-1] < 0
	}
	a.body = slices.Concat(a.body[:from], with, a.body[to:])
	a.of = slices.Concat(a.of[:from], slices.Repeat([]int{within}, len(with)), a.of[to:])
}

// recode puts the answer into another charset: without its name, rows that are not ASCII suffer.
func (a *damagedAnswer) recode(rows []string, e encoding.Encoding, named bool) bool {
	body, err := e.NewEncoder().Bytes(a.body)
	if err != nil {
		return false
	}
	for i, text := range rows {
		if !named && strings.ContainsFunc(text, func(r rune) bool { return r >= 0x80 }) {
			a.touched[i] = true
		}
	}
	a.body, a.of = body, make([]int, len(body)) // nothing may follow
	return true
}

// How an answer is damaged.
const (
	flip = iota
	insert
	drop
	overwrite
	recodeNamed
	recodeUnnamed
	damages
)

// A damage is done to one of damageRows: at a place, and where again is not -1 at a second one too.
type damage struct {
	rows, kind, at, n int
	with              []byte
	again, at2        int
}

// check does the damage, and looks what is read of it. The rows that it does not touch are read as
// they are, or the page is refused as a whole; nothing is published that some JSON parser refuses;
// and no more is published than the rows that are touched can be. Where two places are damaged,
// nobody can always tell which rows there were: then rows that were not touched may lack.
func (d damage) check(t *testing.T) {
	t.Helper()
	rows := damageRows[d.rows]
	a := undamaged(rows)
	contentType := "application/json"
	do := func(kind, at int) bool {
		at %= len(a.body)
		small := d.with[:min(len(d.with), 16)] // too short for a row
		switch kind {
		case flip:
			a.replace(at, at+1, []byte{a.body[at] ^ byte(max(d.n, 1))})
		case insert:
			a.replace(at, at, small)
		case drop:
			a.replace(at, min(at+d.n, len(a.body)), nil)
		case overwrite:
			a.replace(at, min(at+len(small), len(a.body)), small)
		default:
			e, charset := encoding.Encoding(simplifiedchinese.GB18030), "gb18030"
			if d.n%2 == 1 {
				e, charset = unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM), "utf-16le"
			}
			if kind == recodeNamed {
				contentType += ";charset=" + charset
			}
			return a.recode(rows, e, kind == recodeNamed)
		}
		return true
	}
	if !do(d.kind, d.at) || d.again >= 0 && d.kind < recodeNamed && !do(d.again, d.at2) {
		return
	}
	c, err := readText(decodeText(a.body, contentType))
	if err != nil {
		return // refused as a whole
	}
	var published []string
	for _, agent := range c.Agents {
		got := encoded(agent)
		if !strict(got) {
			t.Fatalf("published, but not what every parser takes: %q\n%q", got, a.body)
		}
		published = append(published, got)
	}
	touched := 0
	for i, text := range rows {
		if a.touched[i] {
			touched++
		}
		want := encoded(mustRead(t, answerOf(text)).Agents[0])
		if at := slices.Index(published, want); at >= 0 {
			published = slices.Delete(published, at, at+1)
		} else if !a.touched[i] && !a.touched[-1] && d.again < 0 {
			t.Fatalf("row %d is untouched, and not published: %s\n%q\npublished %q, rejected %+v",
				i, text, a.body, published, c.Rejected)
		}
	}
	if len(published) > touched && !a.touched[-1] {
		t.Fatalf("%d rows are touched, and this is published besides:\n%s\n%q", touched,
			strings.Join(published, "\n"), a.body)
	}
}

var damageWith = []string{
	"",
	`"`,
	`\`,
	"{",
	"}",
	"[",
	"]",
	",",
	"\x00",
	"\xff",
	"\t",
	`"},{"`,
	":",
	"0",
}

// TestAnswerDamage does damage of every kind at every place.
func TestAnswerDamage(t *testing.T) {
	for rows := range damageRows {
		length := len(undamaged(damageRows[rows]).body)
		for kind := range damages {
			for i, with := range damageWith {
				for at := i % 3; at < length; at += 3 {
					damage{rows, kind, at, len(with) + 1, []byte(with), -1, 0}.check(t)
				}
			}
		}
	}
}

func FuzzAnswer(f *testing.F) {
	for kind := range damages {
		for i, with := range damageWith {
			f.Add(
				byte(i),
				byte(kind),
				uint16(31*i),
				byte(len(with)+1),
				[]byte(with),
				i%2 == 0,
				byte(insert),
				uint16(77*i),
			)
		}
	}
	f.Fuzz(
		func(t *testing.T, rows, kind byte, at uint16, n byte, with []byte, twice bool, again byte,
			at2 uint16) {
			d := damage{
				int(rows) % len(damageRows),
				int(kind) % damages,
				int(at),
				int(n),
				with,
				int(again) % damages,
				int(at2),
			}
			if !twice {
				d.again = -1
			}
			d.check(t)
		},
	)
}

// The damage of FuzzAnswer is what it says.
func TestDamage(t *testing.T) {
	rows := damageRows[1]
	a := undamaged(rows)
	for i, text := range rows {
		var of []byte
		for at, row := range a.of {
			if row == i {
				of = append(of, a.body[at])
			}
		}
		if want := strings.TrimSpace(text); string(of) != want {
			t.Errorf("row %d is %q, want %q", i, of, want)
		}
	}
	begin := bytes.Index(a.body, []byte("agentId"))
	a.replace(begin, begin, []byte("!"))
	a.replace(len(a.body)-1, len(a.body), nil)
	if got, want := fmt.Sprint(a.touched), "map[-1:true 0:true]"; got != want ||
		len(a.of) != len(a.body) {
		t.Errorf("touched %s, want %s", got, want)
	}
}
