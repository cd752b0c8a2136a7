package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nats-io/nkeys"
)

// A kind is what a variable takes.
type kind[T any] struct {
	want  string                  // what would be right, as the end of a sentence, for errors and for the README
	parse func(string) (T, error) // errUnusable where want says it all; any other error's text is told too
	show  func(string) string     // what may be told of an unusable value; nil: all of it
}

var errUnusable = errors.New("unusable")

func (k kind[T]) shown(raw string) string {
	if k.show != nil {
		raw = k.show(raw)
	}
	return shortened(raw)
}

// shortened keeps a value that someone pasted by mistake from flooding the screen.
func shortened(s string) string {
	const most = 120
	if len(s) <= most {
		return s
	}
	cut := most
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

func hidden(string) string { return "" }

// Numbers.

// number takes whole numbers from least to most; most 0 is no limit.
func number[T int | int64](least, most T) kind[T] {
	want := fmt.Sprintf("a whole number from %d to %d", least, most)
	if most == 0 {
		want = fmt.Sprintf("a whole number, at least %d", least)
	}
	return kind[T]{want: want, parse: func(raw string) (T, error) {
		n, err := strconv.ParseInt(raw, 10, 64)
		if err != nil || int64(T(n)) != n || T(n) < least || most != 0 && T(n) > most {
			return 0, errUnusable
		}
		return T(n), nil
	}}
}

// fraction takes numbers above zero, up to and with most.
func fraction(want string, most float64) kind[float64] {
	return kind[float64]{want: want, parse: func(raw string) (float64, error) {
		f, err := strconv.ParseFloat(raw, 64)
		if err != nil || !(f > 0 && f <= most) { // not a number is neither
			return 0, errUnusable
		}
		return f, nil
	}}
}

var (
	share   = fraction("a number above 0 and at most 1", 1)
	aSecond = fraction("a number above 0", math.MaxFloat64)
)

var yesNo = kind[bool]{want: "`true` or `false`", parse: func(raw string) (bool, error) {
	b, err := strconv.ParseBool(raw)
	if err != nil {
		return false, errUnusable
	}
	return b, nil
}}

// duration takes durations of at least least that are a multiple of unit.
func duration(want string, least, unit time.Duration) kind[time.Duration] {
	return kind[time.Duration]{want: want, parse: func(raw string) (time.Duration, error) {
		d, err := time.ParseDuration(raw)
		if err != nil || d < least || d%unit != 0 {
			return 0, errUnusable
		}
		return d, nil
	}}
}

var anyDuration = duration("a duration such as `1.5s`, `2m` or `1h30m`, at least `1ms`", time.Millisecond, 1)

func wholeSeconds(least time.Duration) kind[time.Duration] {
	return duration(fmt.Sprintf("a duration of whole seconds such as `30s` or `12h`, at least `%s`", least), least, time.Second)
}

// size takes numbers of bytes of at least least, which want has to say. KB and MB are refused: some
// take them for thousands, some not.
func size(want string, least int64) kind[int64] {
	units := []struct {
		suffix string
		shift  uint
	}{{"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}, {"", 0}}
	return kind[int64]{want: want, parse: func(raw string) (int64, error) {
		for _, u := range units {
			digits, ok := strings.CutSuffix(raw, u.suffix)
			if !ok {
				continue
			}
			n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
			if err != nil || n < 0 || n > math.MaxInt64>>u.shift || n<<u.shift < least {
				break
			}
			return n << u.shift, nil
		}
		return 0, errUnusable
	}}
}

// Lists.

// elements splits a comma-separated list whose elements must be there and differ.
func elements(raw string) ([]string, bool) {
	list := strings.Split(raw, ",")
	for i, e := range list {
		e = strings.TrimSpace(e)
		if e == "" || slices.Contains(list[:i], e) {
			return nil, false
		}
		list[i] = e
	}
	return list, true
}

var businessTypes = kind[[]int]{want: "different whole numbers, none below 0, separated by commas, such as `0,10`",
	parse: func(raw string) ([]int, error) {
		list, ok := elements(raw)
		if !ok {
			return nil, errUnusable
		}
		var types []int
		for _, e := range list {
			n, err := strconv.Atoi(e)
			if err != nil || n < 0 || slices.Contains(types, n) {
				return nil, errUnusable
			}
			types = append(types, n)
		}
		return types, nil
	}}

var fieldNames = kind[[]string]{want: "different names of fields, separated by commas; `*` stands for all that the vendor does not document, `none` alone for no field",
	parse: func(raw string) ([]string, error) {
		list, ok := elements(raw)
		if !ok || len(list) > 1 && slices.Contains(list, "none") {
			return nil, errUnusable
		}
		if list[0] == "none" {
			return []string{}, nil
		}
		return list, nil
	}}

// Words.

func oneOf[T any](want string, words map[string]T) kind[T] {
	return kind[T]{want: want, parse: func(raw string) (v T, err error) {
		v, ok := words[strings.ToLower(raw)]
		if !ok {
			return v, errUnusable
		}
		return v, nil
	}}
}

var (
	logLevels = oneOf("`debug`, `info`, `warn` or `error`", map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	})
	logFormats = oneOf("`text` or `json`", map[string]string{"text": "text", "json": "json"})
)

// replicaName takes what identifies a replica in watermarks, logs and the lease.
var replicaName = kind[string]{want: "at most 128 printable characters without spaces", parse: func(raw string) (string, error) {
	odd := func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) }
	if utf8.RuneCountInString(raw) > 128 || !utf8.ValidString(raw) || strings.ContainsFunc(raw, odd) {
		return "", errUnusable
	}
	return raw, nil
}}

// credential takes anything. It is not trimmed: spaces may belong to it.
func credential(want string) kind[secret] {
	return kind[secret]{want: want, show: hidden, parse: func(raw string) (secret, error) { return newSecret(raw), nil }}
}

// Addresses.

var listenAddr = kind[string]{want: "an address to listen on as `host:port`, such as `127.0.0.1:8080` or `:8080`", parse: parseListen}

var listenAddrOrOff = kind[string]{want: "an address to listen on as `host:port`, such as `127.0.0.1:8080` or `:8080`, or `off`",
	parse: func(raw string) (string, error) {
		if strings.EqualFold(raw, "off") {
			return "", nil
		}
		return parseListen(raw)
	}}

var hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?$`)

func parseListen(raw string) (string, error) {
	host, port, err := net.SplitHostPort(raw)
	if err != nil || !isPort(port) {
		return "", errUnusable
	}
	_, notIP := netip.ParseAddr(host)
	bracketed := strings.HasPrefix(raw, "[")
	if host != "" && notIP != nil && (bracketed || !hostName.MatchString(host)) {
		return "", errUnusable
	}
	return raw, nil
}

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

// isServer reports whether the URL names a host, and a port that something can listen on where it
// names one.
func isServer(u *url.URL) bool {
	host, port := u.Hostname(), u.Port()
	if _, err := netip.ParseAddr(host); err == nil {
		if strings.Contains(host, ":") != strings.HasPrefix(u.Host, "[") { // or it is not told from the port
			return false
		}
	} else if !hostName.MatchString(strings.Map(asASCII, host)) {
		return false
	}
	return port == "" && !strings.HasSuffix(u.Host, ":") || isPort(port) && strings.Trim(port, "0") != ""
}

// asASCII lets names of other scripts pass for names of hosts.
func asASCII(r rune) rune {
	if unicode.IsLetter(r) || unicode.IsMark(r) {
		return 'a'
	}
	return r
}

// vendorURL takes what credentials may be sent to.
var vendorURL = kind[string]{want: "the base URL of the ISDP+ domain, `https://…` without user info, query and fragment; `http://` for loopback only",
	show: shownURL, parse: func(raw string) (string, error) {
		u, err := url.Parse(raw)
		if err != nil || u.Opaque != "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(raw, "#") ||
			!isServer(u) {
			return "", errUnusable
		}
		switch {
		case u.Scheme == "https":
		case u.Scheme == "http" && isLoopback(u.Hostname()):
		default:
			return "", errUnusable
		}
		return raw, nil
	}}

func isLoopback(host string) bool {
	return strings.EqualFold(host, "localhost") || net.ParseIP(host).IsLoopback()
}

// shownURL leaves out whatever may be a password: user info, a query, and of what is no URL all
// that follows a sign that could introduce one, or comes before one that could end it.
func shownURL(raw string) string {
	if u, err := url.Parse(raw); err == nil && u.Host != "" && u.Opaque == "" {
		plain := url.URL{Scheme: u.Scheme, Host: u.Host}
		if !strings.Contains(u.Path, "@") {
			plain.Path, plain.RawPath = u.Path, u.RawPath
		}
		return plain.String()
	}
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		scheme, rest = "", raw
	} else {
		scheme += "://"
	}
	if strings.Contains(rest, "@") {
		rest = "…"
	} else if i := strings.IndexAny(rest, ":?#"); i >= 0 {
		rest = rest[:i] + "…"
	}
	return scheme + rest
}

// natsURLs takes what nats.go takes. It may hold passwords and tokens, so nothing of it is shown.
var natsURLs = kind[secret]{want: "`nats://`, `tls://`, `ws://` or `wss://` URLs of NATS servers, `host` or `host:port`, separated by commas, WebSocket or not but not both",
	show: hidden, parse: func(raw string) (secret, error) {
		var web, plain bool
		for server := range strings.SplitSeq(raw, ",") {
			server = strings.TrimSpace(server)
			if !strings.Contains(server, "://") {
				server = "nats://" + server
			}
			u, err := url.Parse(server)
			if err != nil || !isServer(u) {
				return secret{}, errUnusable
			}
			switch u.Scheme {
			case "nats", "tls":
				plain = true
			case "ws", "wss":
				web = true
			default:
				return secret{}, errUnusable
			}
		}
		if web && plain {
			return secret{}, errUnusable
		}
		return newSecret(strings.TrimSpace(raw)), nil
	}}

// Files.

// fileOf takes the path of a file and reads it through the given function. Where the file holds a
// secret, so may the variable by mistake: then only what begins like a path is shown.
func fileOf[T any](want string, holdsSecret bool, read func(path string, content []byte) (T, error)) kind[T] {
	k := kind[T]{want: want, parse: func(raw string) (v T, err error) {
		content, err := readFile(raw)
		if err != nil {
			return v, err
		}
		return read(raw, content)
	}}
	if holdsSecret {
		k.show = shownPath
	}
	return k
}

func shownPath(raw string) string {
	like := filepath.IsAbs(raw) || strings.HasPrefix(raw, "./") || strings.HasPrefix(raw, "../")
	if !like || strings.ContainsFunc(raw, unicode.IsControl) {
		return ""
	}
	return raw
}

// readFile reads a small file. Its error does not repeat the path.
func readFile(path string) ([]byte, error) {
	const most = 1 << 20
	f, err := os.Open(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, most+1))
	if len(content) > most {
		return nil, errors.New("it is larger than 1 MiB")
	}
	return content, withoutPath(err)
}

func withoutPath(err error) error {
	if detail, ok := errors.AsType[*fs.PathError](err); ok {
		return detail.Err
	}
	return err
}

// vendorCAs keeps the path: the file is read again while rollcall runs, and read here so that a
// wrong one stops the start.
var vendorCAs = fileOf("the path of a readable file with CA certificates in PEM", false, func(path string, content []byte) (string, error) {
	_, err := withSystemCAs(content)
	return path, err
})

// withSystemCAs are the system's CAs and those in content.
func withSystemCAs(content []byte) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // then the file has to do
	}
	if !pool.AppendCertsFromPEM(content) {
		return nil, errors.New("it holds no certificate")
	}
	return pool, nil
}

// The files below are read again by nats.go at each connection, so that they can be replaced while
// rollcall runs. They are read here so that a wrong one stops the start.
var (
	natsCAs = fileOf("the path of a readable file with CA certificates in PEM", false, func(path string, content []byte) (string, error) {
		if !x509.NewCertPool().AppendCertsFromPEM(content) {
			return "", errors.New("it holds no certificate")
		}
		return path, nil
	})
	natsCreds = fileOf("the path of a readable `.creds` file", true, func(path string, content []byte) (string, error) {
		if _, err := nkeys.ParseDecoratedUserNKey(content); err != nil || !strings.Contains(string(content), "JWT") {
			return "", errors.New("it does not hold the JWT and the seed of a user")
		}
		return path, nil
	})
	natsSeed = fileOf("the path of a readable file with the seed of a user NKey (`SU…`)", true, func(path string, content []byte) (string, error) {
		if _, err := nkeys.ParseDecoratedUserNKey(content); err != nil {
			return "", errors.New("it does not hold the seed of a user")
		}
		return path, nil
	})
	natsCert = fileOf("the path of a readable file with a certificate in PEM", false, keepPath)
	natsKey  = fileOf("the path of a readable file with the certificate's key in PEM", true, keepPath)
)

func keepPath(path string, _ []byte) (string, error) { return path, nil }

func matchingPair(cert, key string) bool {
	_, err := tls.LoadX509KeyPair(cert, key)
	return err == nil
}

var anyPath = kind[string]{want: "a path", parse: func(raw string) (string, error) {
	if strings.ContainsRune(raw, 0) {
		return "", errUnusable
	}
	return raw, nil
}}
