package board

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
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

// A site is the page and its assets, made once. The assets' address changes with their content, so
// a browser may keep them.
type site struct {
	version string
	pages   map[string]content // by language
	assets  map[string]content // by name
}

// content is something to serve.
type content struct {
	kind   string
	plain  []byte
	zipped []byte // nil if it does not pay
}

var kinds = map[string]string{
	".css": "text/css; charset=utf-8",
	".js":  "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
}

func newContent(kind string, plain []byte) content {
	c := content{kind: kind, plain: plain}
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // a level that there is
	_, _ = z.Write(plain)                                 // into memory
	_ = z.Close()
	if b.Len() < len(plain)*9/10 {
		c.zipped = b.Bytes()
	}
	return c
}

// newSite makes the site of a tenant from what is embedded, which the tests have seen to be usable.
func newSite(tenant int64) *site {
	s := &site{pages: map[string]content{}, assets: map[string]content{}}
	hash := sha256.New()
	var scripts []string // to be loaded all at once
	names, err := fs.Glob(files, "assets/*.*")
	if err != nil {
		panic(err)
	}
	for _, name := range names {
		body := read(name)
		fmt.Fprintf(hash, "%s %d\n", name, len(body))
		hash.Write(body)
		if kind, ok := kinds[path.Ext(name)]; ok {
			s.assets[path.Base(name)] = newContent(kind, body)
		}
		if path.Ext(name) == ".js" {
			scripts = append(scripts, path.Base(name))
		}
	}
	s.version = hex.EncodeToString(hash.Sum(nil))[:16]
	page := template.Must(template.New("").Option("missingkey=error").
		Parse(string(read("assets/page.html"))))
	for _, lang := range languages {
		var b bytes.Buffer
		err := page.Execute(&b, map[string]any{
			"Lang": lang, "Tenant": strconv.FormatInt(tenant, 10),
			"Assets": "/assets/" + s.version, "W": words(lang), "Scripts": scripts,
		})
		if err != nil {
			panic(fmt.Sprintf("board: the page in %s: %v", lang, err))
		}
		s.pages[lang] = newContent("text/html; charset=utf-8", b.Bytes())
	}
	return s
}

// words are the page's words in a language.
func words(lang string) map[string]string {
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

func (s *site) asset(w http.ResponseWriter, r *http.Request) {
	c, ok := s.assets[r.PathValue("name")]
	if !ok || r.PathValue("version") != s.version {
		http.NotFound(w, r) // of another version: the whole page has to be loaded again
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	c.serve(w, r)
}

func (c content) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	body := c.plain
	h.Set("Content-Type", c.kind)
	if c.zipped != nil {
		h.Add("Vary", "Accept-Encoding")
		if acceptsGzip(r) {
			h.Set("Content-Encoding", "gzip")
			body = c.zipped
		}
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
		name, params, _ := strings.Cut(strings.ReplaceAll(item, " ", ""), ";")
		if name == "gzip" && params != "q=0" {
			return true
		}
	}
	return false
}
