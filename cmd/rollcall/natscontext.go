package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"
	"github.com/synadia-io/orbit.go/natscontext"

	"github.com/rollcall-events/rollcall/internal/setting"
)

// contextFlag adds --context.
func contextFlag(cmd *cobra.Command, name *string) {
	cmd.Flags().StringVar(name, "context", "", "the `context` of the nats command line that says "+
		"where NATS is and as whom to sign in, in place of ROLLCALL_NATS_…")
}

// nowhere connects to no server.
type nowhere struct{}

// errContextURL does not show the URL, which may hold a password.
var errContextURL = errors.New("its url is not one of NATS servers")

var errNowhere = errors.New("nothing is to be connected to")

func (nowhere) Dial(string, string) (net.Conn, error) { return nil, errNowhere }

// useContext takes what says where NATS is, and as whom to sign in, from a context of the nats
// command line: its name, or the absolute path of its file.
func (s *settings) useContext(name string) error {
	if err := s.readContext(name); err != nil {
		return &setting.Error{Field: "--context", Value: name, Want: "a usable context of the " +
			"nats command line (nats context ls shows them): " + err.Error()}
	}
	return nil
}

func (s *settings) readContext(name string) error {
	// The library gives a context only together with a connection, so it gets one to nowhere.
	nc, c, err := natscontext.Connect(name, nats.RetryOnFailedConnect(true),
		nats.SetCustomDialer(nowhere{}), nats.ReconnectErrHandler(func(*nats.Conn, error) {}))
	if _, isURL := errors.AsType[*url.Error](err); isURL {
		return errContextURL
	}
	if err != nil {
		return err
	}
	nc.Close()
	for _, unusable := range [][2]string{{"socks_proxy", c.SocksProxy}, {"nsc", c.NSCLookup},
		{"windows_cert_store", c.WinCertStoreType}, {"user_jwt", c.UserJwt}} {
		if unusable[1] != "" {
			return fmt.Errorf("rollcall can't use %s; write a context without it", unusable[0])
		}
	}
	s.NATSContext, s.NATSInboxPrefix = name, c.InboxPrefix
	maps.DeleteFunc(s.env, func(name string, _ secret) bool {
		return slices.Contains(signIn, name)
	})
	var servers []string
	for server := range strings.SplitSeq(cmp.Or(c.URL, nats.DefaultURL), ",") {
		server = strings.TrimSpace(server)
		if !strings.Contains(server, "://") {
			server = "nats://" + server
		}
		u, err := url.Parse(server)
		if err != nil || u.Host == "" {
			return errContextURL
		}
		switch {
		case c.User != "":
			u.User = url.UserPassword(c.User, c.Password)
		case c.Token != "":
			u.User = url.User(c.Token)
		}
		servers = append(servers, u.String())
	}
	s.env["ROLLCALL_NATS_URL"] = newSecret(strings.Join(servers, ","))
	for variable, path := range map[string]string{
		"ROLLCALL_NATS_CREDS_FILE": c.Creds, "ROLLCALL_NATS_NKEY_FILE": c.NKey,
		"ROLLCALL_NATS_CA_FILE": c.CA, "ROLLCALL_NATS_CERT_FILE": c.Cert,
		"ROLLCALL_NATS_KEY_FILE": c.Key,
	} {
		if rest, ok := strings.CutPrefix(path, "~"); ok {
			home, err := os.UserHomeDir()
			if err != nil {
				return err
			}
			path = filepath.Join(home, rest)
		}
		if path != "" {
			s.env[variable] = newSecret(path)
		}
	}
	return nil
}

// signIn are the variables that say where NATS is, and as whom to sign in.
var signIn = []string{"ROLLCALL_NATS_URL", "ROLLCALL_NATS_URL_FILE", "ROLLCALL_NATS_CREDS_FILE",
	"ROLLCALL_NATS_NKEY_FILE", "ROLLCALL_NATS_CA_FILE", "ROLLCALL_NATS_CERT_FILE",
	"ROLLCALL_NATS_KEY_FILE"}
