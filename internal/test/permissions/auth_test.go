//go:build unix

package permissions

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// An authority issues certificates, each as a file and the file of its key.
type authority struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.file, _ = a.issue("ca", true)
	return a
}

// issue makes a certificate for 127.0.0.1, the authority's own where it has none.
func (a *authority) issue(name string, ca bool) (certFile, keyFile string) {
	a.t.Helper()
	fatal := func(err error) {
		a.t.Helper()
		if err != nil {
			a.t.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fatal(err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	fatal(err)
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true,
	}
	if ca {
		c.IsCA, c.KeyUsage, a.cert, a.key = true, x509.KeyUsageCertSign, c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, &key.PublicKey, a.key)
	fatal(err)
	if ca {
		a.cert, err = x509.ParseCertificate(der)
		fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	fatal(err)
	certFile, keyFile = filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+"-key.pem")
	fatal(os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		0o600))
	fatal(os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		0o600))
	return certFile, keyFile
}

// tries runs rollcall with settings that it can't connect with, and wants the words in one of its
// warnings or errors.
func tries(t *testing.T, v *e2e.Vendor, env map[string]string, words ...string) {
	t.Helper()
	p := e2e.Rollcall(t, e2e.Settings(v.Env(), env))
	defer p.Kill()
	var told string
	wait.Eventually(t, "rollcall to say what is wrong: "+strings.Join(words, ", "), func() bool {
	lines:
		for _, l := range p.Log() {
			text, _ := l["err"].(string)
			for _, w := range words {
				if !strings.Contains(l.Message()+" "+text, w) {
					continue lines
				}
			}
			told = l.Level() + " " + l.Message() + ": " + text
			return l.Level() == "WARN" || l.Level() == "ERROR"
		}
		return false
	})
	t.Log(told)
}

// works runs rollcall with settings that it can connect with, until its log says that an agent is
// online.
func works(t *testing.T, v *e2e.Vendor, operator *nats.Conn, env map[string]string) {
	t.Helper()
	p := e2e.Rollcall(t, e2e.Settings(v.Env(), env))
	v.Atomically(func() { v.SetOnline(isdpsim.FirstID, true) })
	wait.Eventually(t, "a state", func() bool {
		m, ok := e2e.Last(operator, "agent.state.886.17813")
		return ok && strings.Contains(m.Body, `"online":true`)
	})
	if code, _ := p.Terminate(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if strings.Contains(p.Output(), "iolation") {
		t.Error("rollcall was refused something")
	}
}

// with is a with some settings changed.
func with(a map[string]string, nameValue ...string) map[string]string {
	b := maps.Clone(a)
	for i := 0; i < len(nameValue); i += 2 {
		b[nameValue[i]] = nameValue[i+1]
	}
	return b
}

func TestNKey(t *testing.T) {
	t.Parallel()
	u := newUsers(t)
	n := start(t, filepath.Join(deployed, "server.conf"), u.variables(t))
	v := e2e.NewVendor(t, isdpsim.Config{Agents: 5})
	env := map[string]string{"ROLLCALL_NATS_URL": n.url,
		"ROLLCALL_NATS_NKEY_FILE": u.rollcall.seedFile}
	works(t, v, n.connect(u.operator.opt), env)
	t.Run("unknown", func(t *testing.T) {
		tries(t, v, with(env, "ROLLCALL_NATS_NKEY_FILE", newUser(t).seedFile),
			"Authorization Violation", "ROLLCALL_NATS_NKEY_FILE")
	})
	t.Run("none", func(t *testing.T) {
		tries(t, v, with(env, "ROLLCALL_NATS_NKEY_FILE", ""), "Authorization Violation",
			"ROLLCALL_NATS_NKEY_FILE")
	})
	t.Run("a reader's", func(t *testing.T) {
		tries(t, v, with(env, "ROLLCALL_NATS_NKEY_FILE", u.reader.seedFile),
			"Permissions Violation", "$JS.API.STREAM.CREATE.AGENT_EVENTS")
	})
}

func TestTLS(t *testing.T) {
	t.Parallel()
	u, ca, clients, other := newUsers(t), newAuthority(t), newAuthority(t), newAuthority(t)
	v := e2e.NewVendor(t, isdpsim.Config{Agents: 5})
	vars := u.variables(t)
	vars["NATS_TLS_CERT"], vars["NATS_TLS_KEY"] = ca.issue("server", false)
	vars["NATS_TLS_CA"] = clients.file
	cert, key := clients.issue("rollcall", false)
	strangeCert, strangeKey := other.issue("stranger", false)

	t.Run("server", func(t *testing.T) {
		n := start(t, filepath.Join(deployed, "server-tls.conf"), vars)
		url := strings.Replace(n.url, "nats:", "tls:", 1)
		env := map[string]string{"ROLLCALL_NATS_URL": url,
			"ROLLCALL_NATS_NKEY_FILE": u.rollcall.seedFile, "ROLLCALL_NATS_CA_FILE": ca.file}
		works(t, v, n.connect(u.operator.opt, nats.RootCAs(ca.file)), env)
		tries(t, v, with(env, "ROLLCALL_NATS_CA_FILE", other.file),
			"certificate signed by unknown authority")
		tries(t, v, with(env, "ROLLCALL_NATS_CA_FILE", ""),
			"certificate signed by unknown authority")
	})
	t.Run("mutual", func(t *testing.T) {
		n := start(t, filepath.Join(deployed, "server-mtls.conf"),
			with(vars, "NATS_STORE_DIR", t.TempDir()))
		url := strings.Replace(n.url, "nats:", "tls:", 1)
		env := map[string]string{"ROLLCALL_NATS_URL": url,
			"ROLLCALL_NATS_NKEY_FILE": u.rollcall.seedFile, "ROLLCALL_NATS_CA_FILE": ca.file,
			"ROLLCALL_NATS_CERT_FILE": cert, "ROLLCALL_NATS_KEY_FILE": key}
		works(t, v, n.connect(u.operator.opt, nats.RootCAs(ca.file), nats.ClientCert(cert, key)),
			env)
		tries(t, v, with(env, "ROLLCALL_NATS_CERT_FILE", "", "ROLLCALL_NATS_KEY_FILE", ""),
			"certificate required")
		tries(t, v, with(env, "ROLLCALL_NATS_CERT_FILE", strangeCert, "ROLLCALL_NATS_KEY_FILE",
			strangeKey), "tls:")
		tries(t, v, with(env, "ROLLCALL_NATS_NKEY_FILE", ""), "Authorization Violation")
		tries(t, v, with(env, "ROLLCALL_NATS_CA_FILE", other.file),
			"certificate signed by unknown authority")
	})
}
