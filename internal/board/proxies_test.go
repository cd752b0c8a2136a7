//go:build ci && unix

package board

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestProxies runs browser/proxies.test.mjs against the stage behind what deploy/ puts before the
// board: nginx, and oauth2-proxy with a login that is made for the test.
func TestProxies(t *testing.T) {
	for command, from := range map[string]string{"nginx": "Debian's package nginx",
		"oauth2-proxy": "go install github.com/oauth2-proxy/oauth2-proxy/v7 (.ci/run)"} {
		if _, err := exec.LookPath(command); err != nil {
			t.Fatalf("%s is not there (%s): %v", command, from, err)
		}
	}
	*stageListen, *stageInterval = "127.0.0.1:0", 500*time.Millisecond
	proxies := func(ctx context.Context, board, control string) (map[string]string, error) {
		return startProxies(ctx, t, board, control)
	}
	out, err := onStageBehind(t.Context(), 20*time.Minute, false, proxies,
		nodeTests("proxies.test.mjs")...)
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}

// freeAddress is one on which nobody listens now.
func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// startProxies starts them until ctx ends, and returns where browsers find what.
func startProxies(ctx context.Context, t *testing.T, board, control string) (map[string]string,
	error) {
	dir := t.TempDir()
	board = strings.TrimPrefix(board, "http://")
	addresses, err := http.Get(control + "/addresses")
	if err != nil {
		return nil, err
	}
	defer addresses.Body.Close()
	var at struct{ Other string }
	if err := json.NewDecoder(addresses.Body).Decode(&at); err != nil {
		return nil, err
	}
	names := []string{"path", "tls", "plain", "usual", "uncut", "slack", "builds", "guard"}
	listen := map[string]string{}
	for _, name := range names {
		if listen[name], err = freeAddress(); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(certificate(dir),
		os.WriteFile(filepath.Join(dir, "htpasswd"), []byte("leader:{PLAIN}secret\n"), 0o600),
		startLogin(ctx, t, dir, board, listen["guard"], listen["tls"])); err != nil {
		return nil, err
	}

	// The files of deploy, with the addresses and places of here.
	own := func(file string, here ...string) string {
		text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "nginx", file))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(here); i += 2 {
			if !bytes.Contains(text, []byte(here[i])) {
				t.Fatalf("%s has no %s", file, here[i])
			}
		}
		return strings.NewReplacer(here...).Replace(string(text))
	}
	path := own("rollcall-path.conf", "127.0.0.1:8080", board, "/etc/nginx/rollcall.htpasswd",
		dir+"/htpasswd")
	tls := own("rollcall.conf", "127.0.0.1:4180", listen["guard"], "listen 443", "listen "+
		listen["tls"], "listen 80", "listen "+listen["plain"], "board.example.com.pem", "cert.pem",
		"board.example.com.key", "key.pem", "board.example.com", "board.localhost",
		"/etc/ssl/certs", dir, "/etc/ssl/private", dir)
	var others strings.Builder
	for _, s := range []struct{ name, location string }{
		// as most examples have it
		{"usual", "location / { proxy_pass http://" + board + "; proxy_set_header Host $host; }"},
		{"slack", "location /rollcall { proxy_pass http://" + board + "/; }"},
		{"uncut", "location /rollcall/ { proxy_pass http://" + board + "; }"},
	} {
		fmt.Fprintf(&others, "server { listen %s; %s }\n", listen[s.name], s.location)
	}
	whole := own("compose.conf", "/tmp/", dir+"/", "rollcall-1:8080", board, "rollcall-2:8081",
		strings.TrimPrefix(at.Other, "http://"), "listen 8080", "listen "+listen["builds"])
	end := strings.LastIndex(whole, "}")
	whole = whole[:end] + fmt.Sprintf("server { listen %s;\n%s}\n%s\n%s}\n", listen["path"], path,
		tls, &others)
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, []byte(whole), 0o600); err != nil {
		return nil, err
	}
	// As root it would hand its work to another user, who may not read these files.
	global := "daemon off; worker_processes 1;"
	if os.Getuid() == 0 {
		global += " user root;"
	}
	if err := run(ctx, t, nil, listen["path"], "nginx", "-e", "stderr", "-p", dir, "-c", conf, "-g",
		global); err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, name := range names {
		found["AT_"+strings.ToUpper(name)] = "http://" + listen[name]
	}
	_, port, _ := net.SplitHostPort(listen["tls"])
	found["AT_TLS"] = "https://board.localhost:" + port
	_, port, _ = net.SplitHostPort(listen["usual"])
	found["AT_USUAL"] = "http://board.localhost:" + port
	_, port, _ = net.SplitHostPort(listen["builds"])
	found["AT_BUILDS"] = "http://localhost:" + port
	found["AT_STRANGER"] = "http://stranger.localhost:" + port
	return found, nil
}

// run starts a command and waits until somebody listens on an address. It ends with ctx.
func run(ctx context.Context, t *testing.T, env []string, listen, name string,
	args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is told to end
		close(ended)
	}()
	t.Cleanup(func() {
		<-ended
		if t.Failed() {
			t.Logf("%s said:\n%s", name, &said)
		}
	})
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", listen)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ended:
			return fmt.Errorf("%s has ended:\n%s", name, &said)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// certificate makes cert.pem and key.pem, which the browser of the test does not look at.
func certificate(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour),
		NotAfter: now.Add(24 * time.Hour), DNSNames: []string{"board.localhost"}}
	cert, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	write := func(name, kind string, bytes []byte) error {
		return os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind,
			Bytes: bytes}), 0o600)
	}
	return errors.Join(write("cert.pem", "CERTIFICATE", cert), write("key.pem", "PRIVATE KEY",
		secret))
}

// startLogin starts a login, and oauth2-proxy with the file of deploy before the board.
func startLogin(ctx context.Context, t *testing.T, dir, board, listen, tls string) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	login, err := newLogin("http://" + ln.Addr().String())
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: login.mux}
	go func() { _ = srv.Serve(ln) }()
	context.AfterFunc(ctx, func() { _ = srv.Close() })

	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	_, port, _ := net.SplitHostPort(tls)
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "oauth2-proxy",
		"oauth2-proxy.cfg"))
	if err != nil {
		return err
	}
	here := map[string]string{
		"oidc_issuer_url": login.url, "http_address": listen, "upstreams": "http://" + board + "/",
		"redirect_url":       "https://board.localhost:" + port + "/oauth2/callback",
		"client_secret_file": filepath.Join(dir, "client-secret"),
		"cookie_secret_file": filepath.Join(dir, "cookie-secret"),
	}
	for name, value := range here {
		line := regexp.MustCompile(`(?m)^` + name + ` = (\[?)"[^"]*"`)
		if !line.Match(text) {
			return fmt.Errorf("oauth2-proxy.cfg has no %s", name)
		}
		text = line.ReplaceAll(text, []byte(name+` = $1"`+value+`"`))
	}
	cfg := filepath.Join(dir, "oauth2-proxy.cfg")
	if err := errors.Join(os.WriteFile(cfg, text, 0o600),
		os.WriteFile(here["client_secret_file"], []byte("not asked for"), 0o600),
		os.WriteFile(here["cookie_secret_file"],
			[]byte(base64.URLEncoding.EncodeToString(secret)), 0o600)); err != nil {
		return err
	}
	return run(ctx, t, nil, listen, "oauth2-proxy", "--config", cfg)
}
