package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
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

// How the text of a variable becomes a value. What a package's Validate judges is not judged here;
// but zero often means a default there, and nobody who writes 0 means that.

var errUnusable = errors.New("unusable")

// into makes a parser that sets a value where the text has one.
func into[T any](value *T, parse func(text string) (v T, ok bool)) func(string) error {
	return func(text string) error {
		v, ok := parse(text)
		if !ok {
			return errUnusable
		}
		*value = v
		return nil
	}
}

// number takes whole numbers above zero.
func number[T int | int64](value *T) func(string) error {
	return into(value, func(text string) (T, bool) {
		n, err := strconv.ParseInt(text, 10, 64)
		return T(n), err == nil && int64(T(n)) == n && n > 0
	})
}

// fraction takes numbers above zero.
func fraction(value *float64) func(string) error {
	return into(value, func(text string) (float64, bool) {
		f, err := strconv.ParseFloat(text, 64)
		return f, err == nil && f > 0 && !math.IsInf(f, 1)
	})
}

func yesNo(value *bool) func(string) error {
	return into(value, func(text string) (bool, bool) {
		b, err := strconv.ParseBool(text)
		return b, err == nil
	})
}

// duration takes durations of a millisecond or more.
func duration(value *time.Duration) func(string) error {
	return into(value, func(text string) (time.Duration, bool) {
		d, err := time.ParseDuration(text)
		return d, err == nil && d >= time.Millisecond
	})
}

// size takes numbers of bytes. KB and MB are refused: some take them for thousands, some not.
func size(value *int64) func(string) error {
	units := []struct {
		suffix string
		shift  uint
	}{{"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}, {"", 0}}
	return into(value, func(text string) (int64, bool) {
		for _, u := range units {
			if digits, ok := strings.CutSuffix(text, u.suffix); ok {
				n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
				return n << u.shift, err == nil && n >= 0 && n <= math.MaxInt64>>u.shift
			}
		}
		return 0, false
	})
}

// elements splits a comma-separated list whose elements must be there and differ.
func elements(text string) ([]string, bool) {
	list := strings.Split(text, ",")
	for i, e := range list {
		e = strings.TrimSpace(e)
		if e == "" || slices.Contains(list[:i], e) {
			return nil, false
		}
		list[i] = e
	}
	return list, true
}

func numbers(value *[]int) func(string) error {
	return into(value, func(text string) (list []int, ok bool) {
		words, ok := elements(text)
		for _, e := range words {
			n, err := strconv.Atoi(e)
			list, ok = append(list, n), ok && err == nil
		}
		return list, ok
	})
}

func fieldNames(value *[]string) func(string) error {
	return into(value, func(text string) ([]string, bool) {
		list, ok := elements(text)
		if ok && list[0] == "none" && len(list) == 1 {
			return []string{}, true
		}
		return list, ok && !slices.Contains(list, "none")
	})
}

// word takes one of a few words, in capitals or not.
func word[T any](value *T, words map[string]T) func(string) error {
	return into(value, func(text string) (T, bool) {
		v, ok := words[strings.ToLower(text)]
		return v, ok
	})
}

func anyText(value *string) func(string) error {
	return into(value, func(text string) (string, bool) { return text, true })
}

func anyPath(value *string) func(string) error {
	return into(value, func(text string) (string, bool) {
		return text, !strings.ContainsRune(text, 0)
	})
}

func verbatim(value *secret) func(string) error {
	return into(value, func(text string) (secret, bool) { return newSecret(text), true })
}

// Addresses.

func listen(value *string) func(string) error { return into(value, parseListen) }

func listenOrOff(value *string) func(string) error {
	return into(value, func(text string) (string, bool) {
		if strings.EqualFold(text, "off") {
			return "", true
		}
		return parseListen(text)
	})
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?$`)

func parseListen(addr string) (string, bool) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || !isPort(port) {
		return "", false
	}
	_, notIP := netip.ParseAddr(host)
	bracketed := strings.HasPrefix(addr, "[")
	return addr, host == "" || notIP == nil || !bracketed && hostName.MatchString(host)
}

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

// isServer reports whether the URL names a host, and a port that something can listen on where it
// names one. A port with an @ somewhere behind it begins a password that has a slash.
func isServer(u *url.URL) bool {
	host, port := u.Hostname(), u.Port()
	if port != "" && strings.Contains(u.Path+u.RawQuery+u.Fragment, "@") {
		return false
	}
	if _, err := netip.ParseAddr(host); err == nil {
		// Without brackets, such a host can't be separated from the port.
		if strings.Contains(host, ":") != strings.HasPrefix(u.Host, "[") {
			return false
		}
	} else if !hostName.MatchString(strings.Map(asASCII, host)) {
		return false
	}
	if port == "" {
		return !strings.HasSuffix(u.Host, ":")
	}
	return isPort(port) && strings.Trim(port, "0") != ""
}

// asASCII lets names of other scripts pass for names of hosts.
func asASCII(r rune) rune {
	if unicode.IsLetter(r) || unicode.IsMark(r) {
		return 'a'
	}
	return r
}

// vendorURL takes URLs of servers. Whether credentials may be sent there is the poller's to judge.
func vendorURL(value *string) func(string) error {
	return into(value, func(text string) (string, bool) {
		u, err := url.Parse(text)
		return text, err == nil && isServer(u)
	})
}

// natsURLs takes what nats.go takes.
func natsURLs(value *secret) func(string) error {
	return into(value, func(text string) (secret, bool) {
		web := make(map[bool]bool) // whether there are URLs of WebSocket servers, and of others
		for server := range strings.SplitSeq(text, ",") {
			server = strings.TrimSpace(server)
			if !strings.Contains(server, "://") {
				server = "nats://" + server
			}
			u, err := url.Parse(server)
			known := []string{"nats", "tls", "ws", "wss"}
			if err != nil || !isServer(u) || !slices.Contains(known, u.Scheme) {
				return secret{}, false
			}
			web[strings.HasPrefix(u.Scheme, "ws")] = true
		}
		return newSecret(strings.TrimSpace(text)), len(web) == 1
	})
}

// Files. They are read again while rollcall runs, so that they can be replaced, and read here so
// that a wrong one stops the start.

// file takes the path of a file with the right content. Nil: any.
func file(value *string, holds func(content []byte) error) func(string) error {
	return func(path string) error {
		content, err := readFile(path)
		if err == nil && holds != nil {
			err = holds(content)
		}
		if err != nil {
			return err
		}
		*value = path
		return nil
	}
}

func holdsCAs(content []byte) error {
	if !x509.NewCertPool().AppendCertsFromPEM(content) {
		return errors.New("it holds no certificate")
	}
	return nil
}

func holdsCreds(content []byte) error {
	if holdsSeed(content) != nil || !strings.Contains(string(content), "JWT") {
		return errors.New("it does not hold the JWT and the seed of a user")
	}
	return nil
}

func holdsSeed(content []byte) error {
	if _, err := nkeys.ParseDecoratedUserNKey(content); err != nil {
		return errors.New("it does not hold the seed of a user")
	}
	return nil
}

func matchingPair(cert, key string) bool {
	_, err := tls.LoadX509KeyPair(cert, key)
	return err == nil
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

// readText reads a small file without the end of its last line, and without the byte order mark
// that some editors put in front. Its error does not repeat the path.
func readText(path string) (string, error) {
	content, err := readFile(path)
	text := strings.TrimPrefix(string(content), "\ufeff")
	return strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r"), err
}

// What may be shown of a value that can't be used.

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

// shownPath shows of a variable that may hold a secret by mistake only what begins like a path.
func shownPath(text string) string {
	like := filepath.IsAbs(text) || strings.HasPrefix(text, "./") || strings.HasPrefix(text, "../")
	if !like || strings.ContainsFunc(text, unicode.IsControl) {
		return ""
	}
	return text
}

// shownURL leaves out whatever may be a password: user info, a query, and of what is no URL all
// that follows a sign that could introduce one, or comes before one that could end it.
func shownURL(text string) string {
	u, err := url.Parse(text)
	if err == nil && u.Host != "" && !strings.Contains(u.Path+u.RawQuery+u.Fragment, "@") {
		return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
	}
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		scheme, rest = "", text
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

// withoutUserInfo leaves out what may be user info in URLs, of settings that should be no URLs.
func withoutUserInfo(text string) string {
	scheme, rest, _ := strings.Cut(text, "://")
	if i := strings.LastIndex(rest, "@"); i >= 0 {
		return scheme + "://…" + rest[i:]
	}
	return text
}
