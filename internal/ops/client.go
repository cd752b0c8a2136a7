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

// Ready asks a running rollcall at base (http://host:port) whether it is ready, for as long as ctx
// lets it. A process that is not ready is no error; no answer, or not one of rollcall's, is.
func Ready(ctx context.Context, base string) (Readiness, error) {
	var r Readiness
	url := strings.TrimSuffix(base, "/") + PathReady
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return r, fmt.Errorf("ask %s whether it is ready: %w", base, err)
	}
	client := &http.Client{
		// No proxy: it is this machine or pod.
		Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
	resp, err := client.Do(req)
	if err != nil {
		return r, fmt.Errorf("ask whether rollcall is ready: %w: "+
			"does it run, and does it listen there?", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err == nil {
		err = json.Unmarshal(body, &r)
	}
	ok := resp.StatusCode == http.StatusOK
	known := ok || resp.StatusCode == http.StatusServiceUnavailable
	if err == nil && (!known || ok != r.Ready || r.Role == "") {
		err = errors.New("that is no readiness")
	}
	if err != nil {
		return Readiness{}, fmt.Errorf("what answers at %s (HTTP %d) is no rollcall: %w",
			base, resp.StatusCode, err)
	}
	return r, nil
}
