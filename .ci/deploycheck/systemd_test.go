package deploycheck

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSystemd verifies the unit by itself and with the cluster's drop-in.
func TestSystemd(t *testing.T) {
	t.Parallel()
	analyze := tool(t, "systemd-analyze", "systemd")
	unit, dropIn := read(t, "deploy/systemd/rollcall.service"),
		read(t, "deploy/systemd/cluster.conf")

	dir := t.TempDir()
	binary := filepath.Join(dir, "rollcall")
	if err := os.WriteFile(binary, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	// It is not installed here, and verify wants to see it.
	installed := strings.Replace(unit, "ExecStart=/usr/local/bin/rollcall\n",
		"ExecStart="+binary+"\n", 1)
	if installed == unit {
		t.Fatal("the unit does not start /usr/local/bin/rollcall")
	}
	file := filepath.Join(dir, "rollcall.service")
	write(t, file, installed)
	verify := func() {
		t.Helper()
		if out := run(t, dir, analyze, "verify", "--man=no", "--recursive-errors=no",
			file); strings.TrimSpace(out) != "" {
			t.Errorf("systemd-analyze verify: %s", out)
		}
		// In tenths: 1.5 of 10.
		run(t, dir, analyze, "security", "--offline=true", "--threshold=15", file)
	}
	verify()
	if err := os.Mkdir(file+".d", 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(file+".d", "cluster.conf"), dropIn)
	verify()

	for _, line := range []string{"RestartPreventExitStatus=2", "Restart=always",
		"TimeoutStopSec=15"} {
		if !strings.Contains(unit, "\n"+line+"\n") {
			t.Errorf("the unit has no line %s", line)
		}
	}
	for _, text := range []string{unit, dropIn} {
		loaded := make(map[string]bool)
		for _, m := range regexp.MustCompile(
			`(?m)^LoadCredential=([^:]+):/etc/rollcall/credentials/(.+)$`).FindAllStringSubmatch(
			text, -1) {
			loaded[m[1]] = m[1] == m[2]
		}
		for _, m := range regexp.MustCompile(
			`(?m)^Environment=(\w+_FILE)=%d/(.+)$`).FindAllStringSubmatch(text, -1) {
			if !loaded[m[2]] {
				t.Errorf("%s wants the credential %s, which is not loaded from its file",
					m[1], m[2])
			}
			delete(loaded, m[2])
		}
		if len(loaded) > 0 {
			t.Errorf("loaded for nothing: %v", loaded)
		}
	}
	for line := range strings.Lines(read(t, "deploy/systemd/rollcall.env")) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok &&
			secretVariable(name, value) {
			t.Errorf("rollcall.env holds the secret %s", name)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestLoginUnit verifies oauth2-proxy's unit, and that it gets the secrets that its settings name.
func TestLoginUnit(t *testing.T) {
	t.Parallel()
	analyze := tool(t, "systemd-analyze", "systemd")
	unit, cfg := read(t, "deploy/oauth2-proxy/oauth2-proxy.service"),
		read(t, "deploy/oauth2-proxy/oauth2-proxy.cfg")
	dir := t.TempDir()
	binary := filepath.Join(dir, "oauth2-proxy")
	if err := os.WriteFile(binary, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "oauth2-proxy.service")
	write(t, file, strings.Replace(unit, "/usr/local/bin/oauth2-proxy", binary, 1))
	if out := run(t, dir, analyze, "verify", "--man=no", "--recursive-errors=no",
		file); strings.TrimSpace(out) != "" {
		t.Errorf("systemd-analyze verify: %s", out)
	}
	run(t, dir, analyze, "security", "--offline=true", "--threshold=15", file)
	secrets := regexp.MustCompile(`(?m)^(\w+_secret_file) = "/etc/oauth2-proxy/(.+)"$`).
		FindAllStringSubmatch(cfg, -1)
	if len(secrets) != 2 {
		t.Errorf("the settings name the secrets %v", secrets)
	}
	for _, m := range secrets {
		variable, name := "OAUTH2_PROXY_"+strings.ToUpper(m[1]), m[2]
		if !strings.Contains(unit, variable+"=%d/"+name) ||
			!strings.Contains(unit, "\nLoadCredential="+name+":/etc/oauth2-proxy/"+name+"\n") {
			t.Errorf("the unit does not hand %s over", name)
		}
	}
}
