package board

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"

	xlanguage "golang.org/x/text/language"
)

//go:embed assets words
var files embed.FS

// The languages of the page. The first is for readers who ask for none of them.
var (
	languages = []string{"en", "zh-CN"}
	matcher   = xlanguage.NewMatcher([]xlanguage.Tag{xlanguage.English, xlanguage.Chinese})
)

// A site is the page and the worker that its tabs share, made once. The page is one document with
// all that it needs: during an update, builds take turns behind one address, and what one page is
// made of must not come from two.
type site struct {
	build  string             // changes with what the page is made of
	policy string             // of the page and the worker
	pages  map[string]content // by language
	worker content
}

// content is something to serve.
type content struct {
	kind   string
	plain  []byte
	zipped []byte
}

func newContent(kind string, plain []byte) content {
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // a level that there is
	_, _ = z.Write(plain)                                 // into memory
	_ = z.Close()
	return content{kind: kind, plain: plain, zipped: b.Bytes()}
}

// newSite makes the site of a tenant from files, which the tests have seen to be usable.
func newSite(tenant int64, read func(name string) []byte) *site {
	s := &site{pages: map[string]content{}}
	style, page, worker := read("assets/board.css"), script(read, "board"), script(read, "worker")
	markup, icon := read("assets/page.html"), read("assets/icon.svg")
	hash := sha256.New()
	for _, part := range [][]byte{style, page, worker, markup, icon,
		read("words/en.json"), read("words/zh-CN.json")} {
		fmt.Fprintf(hash, "%d\n%s", len(part), part)
	}
	s.build = hex.EncodeToString(hash.Sum(nil))[:16]
	s.worker = newContent("text/javascript; charset=utf-8",
		slices.Concat(fmt.Appendf(nil, "'use strict'\nconst build = '%s'\n", s.build), worker))
	s.policy = policy(page, style)

	t := template.Must(template.New("").Option("missingkey=error").Parse(string(markup)))
	for _, lang := range languages {
		var b bytes.Buffer
		// None of this comes from outside.
		err := t.Execute(&b, map[string]any{
			"Lang": lang, "Tenant": strconv.FormatInt(tenant, 10), "Build": s.build,
			"W": words(read, lang), "Style": template.CSS(style), "Script": template.JS(page),
			"Icon": template.URL("data:image/svg+xml;base64," +
				base64.StdEncoding.EncodeToString(icon)),
		})
		if err != nil {
			panic(fmt.Sprintf("board: the page in %s: %v", lang, err))
		}
		s.pages[lang] = newContent("text/html; charset=utf-8", b.Bytes())
	}
	return s
}

// policy lets the page run its own script with its own style, talk to where it came from, and do
// nothing else; and lets nobody frame it.
func policy(script, style []byte) string {
	hash := func(b []byte) string {
		sum := sha256.Sum256(b)
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return "default-src 'none'; script-src " + hash(script) + "; style-src " + hash(style) +
		"; worker-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; " +
		"form-action 'none'; frame-ancestors 'none'"
}

// words are the page's words in a language.
func words(read func(name string) []byte, lang string) map[string]string {
	w := map[string]string{}
	if err := json.Unmarshal(read("words/"+lang+".json"), &w); err != nil {
		panic(fmt.Sprintf("board: the words in %s: %v", lang, err))
	}
	return w
}

func read(name string) []byte {
	b, err := files.ReadFile(name)
	if err != nil {
		panic(err)
	}
	return b
}

func (s *site) page(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	lang := language(r)
	h.Set("Cache-Control", "no-cache")
	h.Set("Content-Language", lang)
	h.Add("Vary", "Accept-Language")
	s.pages[lang].serve(w, r)
}

// sharedWorker serves the worker. Its address names the build of the page that asks, but any build
// answers: the page sees what it got.
func (s *site) sharedWorker(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-cache")
	s.worker.serve(w, r)
}

func (c content) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	body := c.plain
	h.Set("Content-Type", c.kind)
	h.Add("Vary", "Accept-Encoding")
	if acceptsGzip(r) {
		h.Set("Content-Encoding", "gzip")
		body = c.zipped
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // an error means that the browser has left
}

// language is what the address asks for, else what the browser likes best.
func language(r *http.Request) string {
	asked, liked := r.URL.Query().Get("lang"), r.Header.Get("Accept-Language")
	_, i := xlanguage.MatchStrings(matcher, asked, liked)
	return languages[i]
}

func acceptsGzip(r *http.Request) bool {
	for item := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, weight, _ := strings.Cut(strings.ReplaceAll(item, " ", ""), ";")
		refused := weight != "" && strings.Trim(strings.TrimPrefix(weight, "q="), "0.") == ""
		if name == "gzip" && !refused {
			return true
		}
	}
	return false
}
