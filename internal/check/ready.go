package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
)

// readyLimit is how long a rollcall may take to say whether it is ready.
const readyLimit = 2 * time.Second

// Ready asks the rollcall at baseURL whether it is ready: ok where its /readyz answers 200, with the first line of what it
// says.
func Ready(ctx context.Context, baseURL string) (Level, string) {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	target := baseURL + "/readyz"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return Failure, err.Error()
	}
	resp, err := (&http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true}, // no proxy: it is this machine
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}).Do(req)
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) {
			return Failure, "nothing listens on " + baseURL + ": is rollcall running?"
		}
		if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
			return Failure, fmt.Sprintf("no answer from %s within %s", target, readyLimit)
		}
		return Failure, fmt.Sprintf("no answer from %s: %v", target, reason(err))
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10)) // the status says it
	said, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	said = (&state{}).clean(said)
	if resp.StatusCode != http.StatusOK {
		return Failure, strings.TrimSpace(fmt.Sprintf("not ready: HTTP %d %s", resp.StatusCode, said))
	}
	if said == "" {
		said = "ready"
	}
	return OK, said
}
