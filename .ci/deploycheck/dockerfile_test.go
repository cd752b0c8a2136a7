package deploycheck

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

func TestDockerfile(t *testing.T) {
	f, err := os.Open(root + "/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ast, err := parser.Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range ast.Warnings {
		t.Errorf("%s: %v", w.Short, w.Detail)
	}
	lint := linter.New(&linter.Config{Warn: func(rule, _, _, message string, _ []parser.Range) {
		t.Errorf("%s: %s", rule, message)
	}})
	stages, _, err := instructions.Parse(ast.AST, lint)
	if err != nil {
		t.Fatal(err)
	}
	if len(stages) != 2 || stages[1].BaseName != "scratch" {
		t.Fatalf("%d stages, the last from %s; want the build and one from scratch", len(stages),
			stages[len(stages)-1].BaseName)
	}

	labels := make(map[string]string)
	var args, copied []string
	var user string
	var entry, health []string
	for _, command := range stages[1].Commands {
		switch c := command.(type) {
		case *instructions.LabelCommand:
			for _, l := range c.Labels {
				labels[l.Key] = strings.Trim(l.Value, `"`)
			}
		case *instructions.ArgCommand:
			for _, a := range c.Args {
				args = append(args, a.Key)
			}
		case *instructions.CopyCommand:
			copied = append(copied, c.SourcePaths...)
		case *instructions.UserCommand:
			user = c.User
		case *instructions.EntrypointCommand:
			if c.PrependShell {
				t.Error("the entrypoint wants a shell, and the image has none")
			}
			entry = c.CmdLine
		case *instructions.HealthCheckCommand:
			health = c.Health.Test
			if c.Health.Timeout < 3*time.Second {
				t.Errorf("the health check gives up after %v; rollcall check --ready itself "+
					"waits 2s", c.Health.Timeout)
			}
		case *instructions.RunCommand:
			t.Error("the image has no shell to RUN anything with")
		}
	}
	for _, name := range []string{"title", "description", "version", "revision", "source",
		"documentation"} {
		if labels["org.opencontainers.image."+name] == "" {
			t.Errorf("no label org.opencontainers.image.%s", name)
		}
	}
	if labels["org.opencontainers.image.version"] != "$VERSION" ||
		labels["org.opencontainers.image.revision"] != "$COMMIT" ||
		!slices.Contains(args, "VERSION") || !slices.Contains(args, "COMMIT") {
		t.Errorf("version %q and revision %q are not those of the build's arguments %v",
			labels["org.opencontainers.image.version"], labels["org.opencontainers.image.revision"],
			args)
	}
	if user != "65532:65532" {
		t.Errorf("runs as %q", user)
	}
	if !slices.Equal(entry, []string{"/rollcall"}) ||
		!slices.Equal(health, []string{"CMD", "/rollcall", "check", "--ready"}) {
		t.Errorf("entrypoint %q, health check %q", entry, health)
	}
	if want := []string{"/etc/ssl/certs/ca-certificates.crt", "/src/out/rollcall",
		"/src/out/data"}; !slices.Equal(copied, want) {
		t.Errorf("the image holds %q, want %q", copied, want)
	}
}
