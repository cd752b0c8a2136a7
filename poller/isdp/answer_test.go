package isdp

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"fmt"
	"github.com/rollcall-events/rollcall/internal/listing"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/unicode"

	"github.com/rollcall-events/rollcall/internal/packed"
)

// plainRow is the row of an agent of the given id that needs no leniency.
func plainRow(id int) string {
	return fmt.Sprintf(`{"agentCode":"c","agentName":"name %d","agentId":%d,"onlineStatus":1,`+
		`"type":"10","x":[{"a":"}]"},{"agentId":7}]}`, id, id)
}

// answerOf is an answer with these rows.
func answerOf(rows ...string) string {
	return fmt.Sprintf(`{"stateCode":"0","errorMessage":null,"result":{"data":[%s],"pos":0,`+
		`"total_count":%d,"entityName":null}}`, strings.Join(rows, ","), len(rows))
}

// readText reads a text as page 0 of tenant 886.
func readText(t text) (*listing.Page, error) {
	r := pageReader{tenant: 886, maxRow: 100_000, excerpt: plainExcerpt}
	p, err := r.read(t, 0)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func mustRead(t *testing.T, body string) *listing.Page {
	t.Helper()
	c, err := readText(decodeText([]byte(body), "application/json"))
	if err != nil {
		t.Fatalf("%v\n%q", err, body)
	}
	return c
}

func agentIDs(c *listing.Page) (ids []int64) {
	for _, a := range c.Agents {
		ids = append(ids, a.AgentID())
	}
	return ids
}

// name is the agentName of the first agent.
func name(c *listing.Page) string { return *new(c.Agents[0].Unpack()).AgentName }

// The example answer of the vendor's own page has commas that JSON refuses.
func TestVendorExample(t *testing.T) {
	body, err := os.ReadFile("testdata/vendor-example.txt")
	if err != nil {
		t.Fatal(err)
	}
	if json.Valid(body) {
		t.Fatal("the example is JSON: nothing is shown by it")
	}
	c := mustRead(t, string(body))
	if len(c.Agents) != 1 || len(c.Rejected) != 0 || c.Dropped+c.Repaired != 0 || c.Total != 340 {
		t.Fatalf("%+v", c)
	}
	want := `{"agentId":17813,"tenantId":886,"onlineStatus":1,"userId":307457,` +
		`"agentCode":"0e626733-07d8-45af-af23-aff287b118b8","agentAccount":"111111111",` +
		`"agentName":"111111111","type":"0","areaName":"","isArea":0,"capacity":1,"deleteFlag":0,` +
		`"createdBy":277881,"lastUpdatedBy":277881,"createName":"管理员","lastUpdateName":"管理员",` +
		`"creationTimestamp":1616486693402,"lastUpdateTimestamp":1616486693402,` +
		`"creationDate":"2021-03-23T08:04:54.000+00:00",` +
		`"lastUpdateDate":"2021-03-23T08:05:32.000+00:00",` +
		`"appName":"isdp-qc-server","entityName":"agent"}`
	if got := encoded(c.Agents[0]); got != want {
		t.Errorf("read as\n%s\nwant\n%s", got, want)
	}
}

// What is plain is read as it was meant.
func TestAsMeant(t *testing.T) {
	row := func(name, more string) string {
		return `{"agentId":1,"onlineStatus":1,"agentName":"` + name + `"` + more + `}`
	}
	for what, tc := range map[string]struct{ row, name string }{
		"a tab":                       {row("a\tb", ""), "a\tb"},
		"an end of line":              {row("a\r\nb", ""), "a\r\nb"},
		"the last control character":  {row("a\x1fb", ""), "a\x1fb"},
		"NUL, escaped, marked":        {row(`a\u0000b`, ""), "a\ufffd{0000}b"},
		"a comma before }":            {row("a", ","), "a"},
		"a comma and space before }":  {row("a", " , \n"), "a"},
		"a comma before ]":            {row("a", `,"x":[1,2,]`), "a"},
		"a comma within":              {row("a", `,"x":{"y":{"z":1,},},`), "a"},
		"both":                        {row("a\tb,}", `,"x":"\t",`), "a\tb,}"},
		"a tab behind a backslash":    {row(`a\\`+"\t", ""), "a\\\t"},
		"DEL, which JSON allows":      {row("a\x7fb", ""), "a\x7fb"},
		"half a surrogate pair":       {row(`a\ud800b`, ""), "a\ufffd{d800}b"},
		"the other half":              {row(`\udc00`, ""), "\ufffd{dc00}"},
		"two halves, the wrong way":   {row(`\udc00\ud800`, ""), "\ufffd{dc00}\ufffd{d800}"},
		"a whole pair":                {row(`\ud83d\ude00`, ""), "😀"},
		"the replacement character":   {row("\ufffd", ""), "\ufffd"},
		"it, with a brace of its own": {row("\ufffd{d800}", ""), "\ufffd{fffd}{d800}"},
		"it, escaped":                 {row(`\ufffd{d800}`, ""), "\ufffd{fffd}{d800}"},
	} {
		c := mustRead(t, answerOf(plainRow(5), tc.row, plainRow(6)))
		if !slices.Equal(agentIDs(c), []int64{5, 1, 6}) || len(c.Rejected) > 0 {
			t.Errorf("%s: agents %v, rejected %+v", what, agentIDs(c), c.Rejected)
			continue
		}
		if got := *new(c.Agents[1].Unpack()).AgentName; got != tc.name {
			t.Errorf("%s: the name is %q, want %q", what, got, tc.name)
		}
		if marked := strings.Contains(tc.name, "\ufffd{"); marked != (c.Repaired == 1) {
			t.Errorf("%s: %d repaired", what, c.Repaired)
		}
	}
	for what, body := range map[string]string{
		"commas in the envelope": `{"stateCode":"0","result":{"data":[` + plainRow(5) +
			`,],"pos":0,"total_count":1,},}`,
		"a tab in its message": `{"stateCode":"0","errorMessage":"a` + "\t" +
			`b","result":{"data":[` + plainRow(5) + `],"total_count":1}}`,
		"pretty, with a tab": "{\n\t\"stateCode\": \"0\",\n\t\"result\": {\n\"data\": [\n" +
			strings.Replace(plainRow(5), "name 5", "a\tb", 1) + "\n],\n\"total_count\": 1\n}\n}\n",
	} {
		if c := mustRead(t, body); !slices.Equal(agentIDs(c), []int64{5}) {
			t.Errorf("%s: %+v", what, c)
		}
	}
}

// What is not plain is its row's own matter, wherever it stands: its neighbours are read.
func TestBrokenRow(t *testing.T) {
	broken := func(text string) string { return `{"agentId":1,"onlineStatus":1,` + text + `}` }
	for what, tc := range map[string]struct {
		row   string
		known bool // it says whose it is
	}{
		"a quote in a string":    {broken(`"agentName":"5" tall"`), true},
		"two quotes in a string": {broken(`"agentName":"a"b"c"`), true},
		"a quote, and rows within": {
			broken(`"agentName":"5" tall","x":[{"agentId":2,"onlineStatus":0},{"agentId":3,` +
				`"onlineStatus":0}]`), false},
		"rows within, and a quote": {
			broken(`"x":[{"agentId":2,"onlineStatus":0},{"agentId":3,"onlineStatus":0}],` +
				`"agentName":"5" tall"`), false},
		"a row within, and a quote": {
			broken(`"x":{"agentId":2,"onlineStatus":0},"agentName":"5" tall"`), false},
		"NUL":                         {broken("\"agentName\":\"a\x00b\""), true},
		"a word":                      {broken(`"agentName":nobody`), true},
		"NaN":                         {broken(`"capacity":NaN`), true},
		"a number like no other":      {broken(`"capacity":007`), true},
		"no value":                    {broken(`"agentName":`), true},
		"no comma":                    {broken(`"agentName":"a" "type":"10"`), true},
		"two commas":                  {broken(`"agentName":"a",,"type":"10"`), true},
		"an escape like no other":     {broken(`"agentName":"a\x41"`), true},
		"single quotes":               {broken(`'agentName':'a'`), true},
		"no quotes":                   {broken(`agentName:"a"`), true},
		"no end":                      {`{"agentId":1,"onlineStatus":1,"agentName":"a"`, true},
		"cut in a string":             {`{"agentId":1,"onlineStatus":1,"agentName":"a`, true},
		"cut in a name":               {`{"agentId":1,"onlineStatus":1,"agen`, true},
		"brackets that do not match":  {broken(`"x":[1}`), true},
		"a control character, a name": {broken("\"agent\tName\":\"a\""), true},
		"the status twice":            {broken(`"onlineStatus":0`), true},
		"the id twice":                {broken(`"agentId":2`), false},
		"the id twice, and the flag": {
			broken(`"deleteFlag":0,"agentId":2,"deleteFlag":1`), false},
		"an id with zeros before it": {`{"onlineStatus":1,"agentId":017,"type":"10"}`, false},
		"an id with a comma":         {`{"onlineStatus":1,"agentId":17,813,"type":"10"}`, false},
		"an id with a letter in it":  {`{"onlineStatus":1,"agentId":1O7,"type":"10"}`, false},
		"NaN right behind the id":    {`{"agentId":1,"tenantId":NaN,"onlineStatus":1}`, true},
		"an id behind where it breaks": {
			`{"onlineStatus":1,"agentName":"5" tall","agentId": 1 ,"type":"10"}`, false},
		"two ids behind": {
			`{"onlineStatus":1,"agentName":nobody,"agentId":1,"agentId":2}`, false},
		"another's id before": {
			`{"leader":{"agentId":7},"note":"a"b","agentId":5.0,"onlineStatus":1}`, false},
		"no id":               {`{"onlineStatus":1,"agentName":nobody}`, false},
		"nothing but a quote": {`"`, false},
		"text":                {`garbage`, false},
		"nested too deep": {
			broken(`"x":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)), true},
		"nested too deep, and a comma": {
			broken(`"x":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `,`), true},
	} {
		for place := range 3 {
			rows := []string{plainRow(5), plainRow(6)}
			c := mustRead(t, answerOf(slices.Insert(rows, place, tc.row)...))
			if !slices.Equal(agentIDs(c), []int64{5, 6}) || len(c.Rejected) != 1 || c.Rows() != 3 {
				t.Errorf(
					"%s, row %d: agents %v, rejected %+v, %d rows",
					what,
					place,
					agentIDs(c),
					c.Rejected,
					c.Rows(),
				)
				continue
			}
			r := c.Rejected[0]
			if r.Index != place || r.Reason != packed.RejectSyntax || r.Detail == "" ||
				r.Known != tc.known ||
				r.Known && r.AgentID != 1 ||
				c.Unidentified() > 0 == r.Known {
				t.Errorf("%s, row %d: %+v, %d unidentified", what, place, r, c.Unidentified())
			}
		}
	}
}

// Several broken rows are several rows.
func TestBrokenRows(t *testing.T) {
	quote := `{"agentId":1,"onlineStatus":1,"agentName":"5" tall"}`
	word := `{"agentId":2,"onlineStatus":1,"agentName":nobody}`
	for _, rows := range [][]string{
		{quote, plainRow(5), quote, plainRow(6)},
		{quote, plainRow(5), word, plainRow(6), quote},
		{word, word, plainRow(5), plainRow(6)},
		{plainRow(5), word, quote, plainRow(6)},
	} {
		c := mustRead(t, answerOf(rows...))
		if !slices.Equal(agentIDs(c), []int64{5, 6}) || len(c.Rejected) != len(rows)-2 {
			t.Errorf("%v: agents %v, rejected %+v", rows, agentIDs(c), c.Rejected)
		}
	}
	many := answerOf(slices.Repeat([]string{word}, 100_000)...)
	begin := time.Now()
	_, err := readText(text{utf8: []byte(many)})
	if took := time.Since(begin); err == nil || took > 10*time.Second {
		t.Errorf("as many as nobody sends: %v after %v", err, took)
	}
	all := make([]string, 50) // of a vendor whose every row is broken
	for i := range all {
		all[i] = quote
	}
	if c, err := readText(text{utf8: []byte(answerOf(all...))}); err == nil &&
		(len(c.Agents) > 0 || len(c.Rejected) == 0) {
		t.Errorf("%+v", c)
	}
}

// An answer that is broken outside its rows is refused, and its error says where and how it looks.
func TestBrokenAnswer(t *testing.T) {
	whole := answerOf(plainRow(5), plainRow(6))
	gbk, err := simplifiedchinese.GBK.NewEncoder().String(strings.Replace(whole, "name 5", "张三", 1))
	if err != nil {
		t.Fatal(err)
	}
	for what, tc := range map[string]struct {
		body string
		want []string
	}{
		"cut short": {whole[:len(whole)-30],
			[]string{"cut short", fmt.Sprintf("byte %d of %d", len(whole)-30, len(whole)-30),
				"row 1", "agent 6"}},
		"cut in a row": {whole[:strings.Index(whole, `name 6`)],
			[]string{"cut short", "row 0", "agent 5"}},
		"more behind it": {whole + "<!-- gateway 7 -->",
			[]string{"more follows", fmt.Sprint(len(whole))}},
		"HTML":                {"\n<!DOCTYPE html><html>", []string{"HTML"}},
		"nothing":             {" \n", []string{"empty"}},
		"a broken envelope":   {`{"stateCode";` + whole[1:], []string{"not JSON", "byte 12"}},
		"GBK, and broken":     {`{"stateCode";` + gbk[1:], []string{"not JSON", "GBK"}},
		"UTF-16, and no mark": {"{\x00\"\x00s\x00", []string{"binary, or UTF-16"}},
		"a number":            {"17", []string{"another kind"}},
	} {
		_, err := readText(decodeText([]byte(tc.body), ""))
		for _, want := range tc.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %v, want one about %q", what, err, want)
			}
		}
		if err != nil && strings.Contains(err.Error(), "name") {
			t.Errorf("%s: the error shows what a row says: %v", what, err)
		}
	}
}

func TestCharsets(t *testing.T) {
	whole := answerOf(`{"agentId":1,"onlineStatus":1,"agentName":"张三\\","x":"龙{"}`, plainRow(5))
	in := func(e encoding.Encoding) []byte {
		b, err := e.NewEncoder().Bytes([]byte(whole))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	gbk := in(simplifiedchinese.GBK)
	for what, tc := range map[string]struct {
		body        []byte
		contentType string
	}{
		"UTF-8":              {[]byte(whole), "application/json"},
		"UTF-8, and says so": {[]byte(whole), `application/json; charset="utf8"`},
		"UTF-8 with a mark": {[]byte("\ufeff" + whole),
			"application/json;charset=UTF-8"},
		"UTF-8 with two marks":        {[]byte("\ufeff\ufeff" + whole), ""},
		"UTF-8 with a mark, says GBK": {[]byte("\ufeff" + whole), "application/json;charset=GBK"},
		"an unknown charset":          {[]byte(whole), "application/json;charset=x-unknown"},
		"no type at all":              {[]byte(whole), ""},
		"GBK":                         {gbk, "application/json;charset=GBK"},
		"gbk, and more":               {gbk, `text/plain; v=1; CharSet="gbk"`},
		"GB2312, which is GBK":        {gbk, "application/json; charset=gb2312"},
		"GBK, said twice":             {gbk, "application/json;charset=GBK;charset=GBK"},
		"GB18030": {in(simplifiedchinese.GB18030),
			"application/json;charset=GB18030"},
		"GBK in single quotes": {gbk, "application/json; charset='gbk'"},
		"GBK, and blanks":      {gbk, "application/json; charset = GBK "},
		"GBK, and another type": {gbk,
			"application/json;charset=GBK, application/json"},
		"GBK, and half a quotation":  {gbk, `application/json; charset="gbk`},
		"GB2312, as EUC":             {gbk, "application/json;charset=EUC-CN"},
		"UTF-8, an empty charset":    {[]byte(whole), "application/json;charset="},
		"UTF-8, and an empty string": {[]byte(whole), `application/json;charset="";v=gbk`},
		"GB18030 with a mark": {append([]byte("\x84\x31\x95\x33"),
			in(simplifiedchinese.GB18030)...), "application/json;charset=GB18030"},
		"UTF-16 with two marks": {append([]byte("\xff\xfe"),
			in(unicode.UTF16(unicode.LittleEndian, unicode.UseBOM))...), ""},
		"UTF-16 big-endian": {in(unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM)),
			"application/json;charset=utf-16"},
		"UTF-16 little-endian": {in(unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM)),
			"application/json;charset=utf-16"},
		"UTF-16 with a mark": {in(unicode.UTF16(unicode.LittleEndian, unicode.UseBOM)),
			"application/json"},
		"UTF-16 big-endian, says so": {in(unicode.UTF16(unicode.BigEndian, unicode.UseBOM)),
			"application/json;charset=utf-16"},
		"UTF-16 little-endian by name": {in(unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM)),
			"application/json;charset=utf-16le"},
	} {
		c, err := readText(decodeText(tc.body, tc.contentType))
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if !slices.Equal(agentIDs(c), []int64{1, 5}) || name(c) != `张三\` || c.Repaired > 0 {
			t.Errorf("%s: agents %v, name %q, %+v", what, agentIDs(c), name(c), c.Rejected)
		}
	}
}

// A row that is not text in the answer's charset is rejected; nothing of it becomes U+FFFD unsaid.
func TestNotText(t *testing.T) {
	gbk := func(s string) string {
		b, err := simplifiedchinese.GBK.NewEncoder().String(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	named := func(id int, name string) string {
		return fmt.Sprintf(`{"agentId":%d,"onlineStatus":1,"agentName":"%s","type":"10"}`, id, name)
	}
	for what, tc := range map[string]struct {
		row, contentType, detail string
	}{
		"GBK, unsaid": {named(1, gbk("张三")), "application/json",
			"can be read as GBK"},
		"GBK, said to be UTF-8": {named(1, gbk("张三")), "application/json;charset=utf-8",
			"can be read as GBK"},
		// 誠, whose second byte is one
		"GBK that ends in a backslash": {named(1, "\xd5\x5c"), "", "no JSON"},
		"GBK with a brace":             {named(1, "\x8b\x7b\x81\x7d"), "", "GBK"},
		"no charset's":                 {named(1, "a\xffb"), "", "agentName is not UTF-8"},
		"half a character":             {named(1, "a\xe5\xbc"), "", "agentName is not UTF-8"},
		"a surrogate in UTF-8": {named(1, "\xed\xa0\x80"), "",
			"agentName is not UTF-8"},
		"bytes that mean nothing in GBK": {named(1, "a\xff\xffb"),
			"application/json;charset=GBK", "charset gbk"},
		"a number's field with such a text": {`{"agentId":1,"onlineStatus":1,"capacity":"` +
			"\xff" + `"}`, "", "capacity is not UTF-8"},
	} {
		body := answerOf(plainRow(5), tc.row, plainRow(6))
		c, err := readText(decodeText([]byte(body), tc.contentType))
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if !slices.Equal(agentIDs(c), []int64{5, 6}) || len(c.Rejected) != 1 {
			t.Errorf("%s: agents %v, rejected %+v", what, agentIDs(c), c.Rejected)
			continue
		}
		if r := c.Rejected[0]; r.AgentID != 1 || !strings.Contains(r.Detail, tc.detail) {
			t.Errorf("%s: %+v, want detail %q", what, r, tc.detail)
		}
	}
}

// Undocumented names and values are kept, as JSON that every parser takes, and what was different
// stays different.
func TestUndocumentedValues(t *testing.T) {
	long := strings.Repeat("a", 100)
	digits := strings.Repeat("9", 309)
	values := []string{
		digits, `[-` + digits + `.5]`, digits[1:], `["` + digits + `"]`,
		`"\ud800"`, `"\udc00"`, `"\udfff\ud800"`, `"\ud800\u0061"`, "\"\xff\"", "\"\xfe\"",
		"\"\xff\xfe\"", "\"\xe5\xbc\"",
		`"\u0000"`, `"\u0000\u0000"`, `"�"`, "\"\ufffd{ff}\"", "\"\ufffd{d800}\"",
		"\"\ufffd{fffd}{ff}\"",
		`{"a":1,"a":2}`, `{"a":2,"a":2}`, `{"a":2}`,
		"[\"\xff\"]", "[\"\xfe\"]", "{\"\xff\":1}", "{\"\xfe\":1}", `{"\ud800":1}`,
		`{"\ud800":1,"\ud801":1}`,
		`"` + long + `\ud800"`, `"` + long + `\ud801"`, `[1.0, 1e5 ]`, `[ 1.0,1e5]`, `1e999`,
		`-1e400`, `[1e999]`, `"1e999"`, "\"\ufffd{number}1e999\"", `1.0`, `1`, `"1"`, `true`, `{}`,
		`[]`, `""`,
	}
	seen := make(map[string]string)
	for _, v := range values {
		for _, row := range []string{
			`{"agentId":1,"onlineStatus":1,"x":` + v + `}`,
			`{"agentId":1,"onlineStatus":1,` + nameFrom(v) + `:1}`,
		} {
			if strings.Contains(row, `,:1}`) {
				continue
			}
			c := mustRead(t, answerOf(row))
			if len(c.Agents) != 1 {
				t.Errorf("%s: %+v", row, c.Rejected)
				continue
			}
			got := encoded(c.Agents[0])
			if !strict(got) {
				t.Errorf("%q is published as %q", row, got)
			}
			if was, ok := seen[got]; ok && was != row {
				t.Errorf("%q and %q are both published as %q", was, row, got)
			}
			seen[got] = row
			if same := strings.Contains(got, `"x":`+v); same == (c.Repaired > 0) &&
				!strings.Contains(row, ":1}") {
				t.Errorf("%q is published as %q, with %d repaired", row, got, c.Repaired)
			}
		}
	}
}

// nameFrom is a value that is a string as a field's name; "" for any other.
func nameFrom(value string) string {
	if !strings.HasPrefix(value, `"`) {
		return ""
	}
	return `"n` + value[1:]
}

func TestCompression(t *testing.T) {
	whole := []byte(answerOf(plainRow(5)))
	gz := func(b []byte) []byte {
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		_, _ = w.Write(b)
		_ = w.Close()
		return out.Bytes()
	}
	var deflated bytes.Buffer
	w := zlib.NewWriter(&deflated)
	_, _ = w.Write(whole)
	_ = w.Close()
	for what, body := range map[string][]byte{
		"plain": whole, "gzip": gz(whole), "gzip twice": gz(gz(whole)), "deflate": deflated.Bytes(),
		"empty":                     {},
		"a text that begins with x": []byte("xyz"),
	} {
		got, err := decompressed(body)
		want := whole
		if len(body) < 10 {
			want = body
		}
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
	for what, body := range map[string][]byte{
		"cut short": gz(whole)[:20], "damaged": append([]byte("\x1f\x8b"), whole...),
		"a bomb": gz(make([]byte, maxBody+1)),
	} {
		if _, err := decompressed(body); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

// A field that is nested deeper than JSON libraries read rejects its row.
func TestDeepField(t *testing.T) {
	field := func(levels int) string {
		return `{"agentId":1,"onlineStatus":1,"x":` + strings.Repeat(
			"[",
			levels,
		) + strings.Repeat(
			"]",
			levels,
		) + `}`
	}
	if c := mustRead(t, answerOf(field(maxLevels), plainRow(5))); len(c.Agents) != 2 {
		t.Errorf("%d levels: %+v", maxLevels, c.Rejected)
	}
	c := mustRead(t, answerOf(field(maxLevels+1), plainRow(5)))
	if !slices.Equal(agentIDs(c), []int64{5}) || len(c.Rejected) != 1 ||
		c.Rejected[0].AgentID != 1 {
		t.Errorf("%d levels: agents %v, rejected %+v", maxLevels+1, agentIDs(c), c.Rejected)
	}
}

// A name in GBK that is UTF-8 by chance is not published as what it is not, beside rows that show
// what the page is in.
func TestGBKByChance(t *testing.T) {
	gbk := func(name string) string {
		b, err := simplifiedchinese.GBK.NewEncoder().String(name)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	row := func(id int, name string) string {
		return fmt.Sprintf(`{"agentId":%d,"onlineStatus":1,"agentName":"%s"}`, id, name)
	}
	chance := gbk("钱伟")
	if !utf8.ValidString(chance) {
		t.Fatal("the name is not UTF-8: nothing is shown by it")
	}
	c := mustRead(t, answerOf(row(1, gbk("张三")), row(2, chance), plainRow(5)))
	if !slices.Equal(agentIDs(c), []int64{5}) || len(c.Rejected) != 2 ||
		c.Rejected[1].AgentID != 2 {
		t.Errorf("agents %v, rejected %+v", agentIDs(c), c.Rejected)
	}
	if c := mustRead(t, answerOf(row(2, "Müller"), plainRow(5))); len(c.Agents) != 2 {
		t.Errorf("beside none that is GBK: %+v", c.Rejected)
	}
}

// An answer that is made to be looked at for ever is given up when enough of it has been looked at.
func TestHostileAnswer(t *testing.T) {
	for _, part := range []string{"{", `<a href="{x}">[]</a>`, `{"agentId":1,"onlineStatus":1},"`} {
		body := []byte(
			`{"stateCode":"0","result":{"data":[` + strings.Repeat(part, 300_000/len(part)),
		)
		d := damaged{rows: body, left: 1 << 20, refused: make(map[int]bool)}
		if _, ok := d.read(); ok {
			t.Errorf("%s…: it fits", part)
		}
		// What was begun is finished: a pass or two over the answer.
		if over := -d.left; over > 40*len(body) {
			t.Errorf("%s…: %d bytes more than allowed were looked at, of %d", part, over, len(body))
		}
	}
}
