package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// maxAnswer is how many bytes of an answer are read: far more than a readiness takes.
const maxAnswer = 64 << 10

// Ready asks a running rollcall whether it is ready. base is where it listens, as http://host:port.
// The error says that nobody answers, or not as rollcall does: a process that answers and is not
// ready is no error. It waits as long as ctx lets it.
func Ready(ctx context.Context, base string) (Readiness, error) {
	var r Readiness
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(base, "/")+PathReady, nil)
	if err != nil {
		return r, fmt.Errorf("ask %s whether it is ready: %w", base, err)
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true}, // no proxy: this is about one's own machine, or pod
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return r, fmt.Errorf("ask whether rollcall is ready: %w: does it run, and does it listen there?", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err == nil {
		err = json.Unmarshal(body, &r)
	}
	ok := resp.StatusCode == http.StatusOK
	if err == nil && (!ok && resp.StatusCode != http.StatusServiceUnavailable || ok != r.Ready || r.Role == "") {
		err = errors.New("that is no readiness")
	}
	if err != nil {
		return Readiness{}, fmt.Errorf("what answers at %s (HTTP %d) is no rollcall: %w", base, resp.StatusCode, err)
	}
	return r, nil
}
