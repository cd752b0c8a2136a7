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
)

//go:embed assets words
var files embed.FS

// The languages of the page. The first is for readers who ask for none of them.
var languages = []string{"en", "zh-CN"}

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

var kinds = map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

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
	}
	s.version = hex.EncodeToString(hash.Sum(nil))[:16]
	page := template.Must(template.New("").Option("missingkey=error").Parse(string(read("assets/page.html"))))
	for _, lang := range languages {
		w := words(lang)
		var b bytes.Buffer
		err := page.Execute(&b, map[string]any{"Lang": lang, "Tenant": strconv.FormatInt(tenant, 10), "Assets": "/assets/" + s.version,
			"W": w, "Scripts": scripts(names)})
		if err != nil {
			panic(fmt.Sprintf("board: the page in %s: %v", lang, err))
		}
		s.pages[lang] = newContent("text/html; charset=utf-8", b.Bytes())
	}
	return s
}

// scripts are the names of the modules, to be loaded all at once.
func scripts(names []string) (modules []string) {
	for _, name := range names {
		if path.Ext(name) == ".js" {
			modules = append(modules, path.Base(name))
		}
	}
	return modules
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
		http.NotFound(w, r) // of another version: its page has to be loaded anew, not half of it
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
		if weight(r.Header.Get("Accept-Encoding"), "gzip") > 0 {
			h.Set("Content-Encoding", "gzip")
			body = c.zipped
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // who has left does not want it
}

// language is what the address asks for, else what the browser likes best.
func language(r *http.Request) string {
	if lang := r.URL.Query().Get("lang"); lang != "" {
		for _, l := range languages {
			if weight(lang, base(l)) > 0 {
				return l
			}
		}
	}
	best, most := languages[0], 0.0
	for _, l := range languages {
		if q := weight(r.Header.Get("Accept-Language"), base(l)); q > most {
			best, most = l, q
		}
	}
	return best
}

// base is a language without its region.
func base(lang string) string {
	b, _, _ := strings.Cut(lang, "-")
	return b
}

// weight is how much a header like Accept-Language wants something: the q of the first item that is
// it, or a kind of it. Of items with the same q the earlier one weighs a little more.
func weight(header, want string) float64 {
	for i, item := range strings.Split(header, ",") {
		name, params, _ := strings.Cut(item, ";")
		name = strings.ToLower(strings.TrimSpace(name))
		if name != want && !strings.HasPrefix(name, want+"-") {
			continue
		}
		q := 1.0
		if v, ok := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q="); ok {
			f, err := strconv.ParseFloat(v, 64)
			if err != nil || !(f >= 0 && f <= 1) {
				f = 0
			}
			q = f
		}
		return max(0, q-float64(min(i, 99))*1e-6*q)
	}
	return 0
}
