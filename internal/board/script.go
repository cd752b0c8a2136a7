package board

import (
	"bytes"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

var (
	importLine = regexp.MustCompile(
		`(?m)^import \{([^}]*)\} from '\./(\w+)\.js'\n`)
	exportLine = regexp.MustCompile(
		`(?m)^export ((?:async )?function|class|const) ([\w$]+)`)
	moduleLine = regexp.MustCompile(`(?m)^(?:import|export)\b.*`)
)

// A bundle is a script made of modules: it is whole, so it can't be of two builds, and takes one
// request. Each module becomes a function that returns what it exports, since modules may use the
// same names. Only the plainest imports and exports are known: everything else panics.
type bundle struct {
	read    func(name string) []byte
	out     bytes.Buffer
	exports map[string][]string // by module; there once it has been written
}

// script is the bundle of a module of the assets and all that it imports.
func script(read func(name string) []byte, entry string) []byte {
	b := bundle{read: read, exports: map[string][]string{}}
	b.module(entry)
	return b.out.Bytes()
}

func (b *bundle) module(name string) {
	if _, ok := b.exports[name]; ok {
		return
	}
	b.exports[name] = nil // modules that import each other panic below
	source := string(b.read(path.Join("assets", name+".js")))
	for _, m := range importLine.FindAllStringSubmatch(source, -1) {
		b.module(m[2])
		for names := range strings.SplitSeq(m[1], ",") {
			if n := strings.TrimSpace(names); !slices.Contains(b.exports[m[2]], n) {
				panic(fmt.Sprintf("board: %s.js imports %s, which %s.js does not export", name, n,
					m[2]))
			}
		}
	}
	source = importLine.ReplaceAllString(source, "const {$1} = module_$2\n")
	var exports []string
	for _, m := range exportLine.FindAllStringSubmatch(source, -1) {
		exports = append(exports, m[2])
	}
	source = exportLine.ReplaceAllString(source, "$1 $2")
	if other := moduleLine.FindString(source); other != "" {
		panic(fmt.Sprintf("board: %s.js has an import or export that can't be bundled: %s", name,
			other))
	}
	b.exports[name] = exports
	fmt.Fprintf(&b.out, "const module_%s = (() => {\n%s\nreturn { %s }\n})()\n", name, source,
		strings.Join(exports, ", "))
}
