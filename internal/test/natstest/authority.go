package natstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// An Authority issues certificates, each as a file and the file of its key.
type Authority struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	File string // its own certificate
}

// NewAuthority makes one, for as long as the test lasts.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{t: t, dir: t.TempDir()}
	a.File, _ = a.issue("ca", true)
	return a
}

// Issue makes a certificate for this machine, and returns its file and that of its key.
func (a *Authority) Issue(name string) (certFile, keyFile string) {
	a.t.Helper()
	return a.issue(name, false)
}

// issue makes a certificate for 127.0.0.1, the authority's own where it has none.
func (a *Authority) issue(name string, ca bool) (certFile, keyFile string) {
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
		// nats.js (3.4.0) compares with localhost, whatever the server's address is.
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		BasicConstraintsValid: true,
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
