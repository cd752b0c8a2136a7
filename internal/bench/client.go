package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/rollcall-events/rollcall/internal/tenantsim"
)

// A client reads all pages as rollcall asks for them, and throws them away.
type client struct {
	http  *http.Client
	url   string
	token string
}

// inFlight is how many pages are in flight, of rollcall and of the client.
const inFlight = 4

func newClient(url string) (*client, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: inFlight}
	c := &client{url: url, http: &http.Client{Transport: transport}}
	body, err := c.post(tenantsim.TokenPath, `{"client_id":"bench","client_secret":"bench-secret",`+
		`"grant_type":"password","username":"bench-user","password":"bench-password"}`)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var t struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(body).Decode(&t); err != nil {
		return nil, fmt.Errorf("decode the token: %w", err)
	}
	c.token = t.Token
	return c, nil
}

// post sends a request with rollcall's headers, and returns the answer's body.
func (c *client) post(path, body string) (io.ReadCloser, error) {
	req, err := http.NewRequest(http.MethodPost, c.url+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "rollcall")
	if c.token != "" {
		req.Header.Set("Authorization", "bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("%s: HTTP %d", path, resp.StatusCode)
	}
	return resp.Body, nil
}

// page reads one page and throws it away, but for the first bytes where head is given.
func (c *client) page(n int, head []byte) error {
	query := `{"pageStart":` + strconv.Itoa(n) + `,"pageSize":` + strconv.Itoa(pageSize) + `}`
	body, err := c.post(tenantsim.AgentsPath, query)
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := io.ReadFull(body, head); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, body)
	return err
}

// number finds a field of an answer that is a number, without decoding the answer.
func number(body []byte, field string) (n int, ok bool) {
	_, rest, _ := bytes.Cut(body, []byte(field))
	end := bytes.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	n, err := strconv.Atoi(string(rest[:max(0, end)]))
	return n, err == nil
}

// sweep reads page 0, which says how many there are, and then the others.
func (c *client) sweep() error {
	head := make([]byte, 128)
	if err := c.page(0, head); err != nil {
		return err
	}
	total, ok := number(head, `"total_count":`)
	if !ok {
		return errors.New("page 0 has no total_count")
	}
	todo, errs := make(chan int), make([]error, inFlight)
	var workers sync.WaitGroup
	for i := range inFlight {
		workers.Go(func() {
			for n := range todo {
				errs[i] = cmp.Or(errs[i], c.page(n, nil))
			}
		})
	}
	for n := 1; n < (total+pageSize-1)/pageSize; n++ {
		todo <- n
	}
	close(todo)
	workers.Wait()
	return errors.Join(errs...)
}

// sweeps sweeps n times, once an interval, and returns how many milliseconds of CPU a sweep took,
// and how many of time each.
func (c *client) sweeps(n int, interval time.Duration) (cpu float64, walls []float64) {
	runtime.GC() // of what else bench remembers
	before := get(cpuTime(os.Getpid()))
	for range n {
		began := time.Now()
		must(c.sweep())
		walls = append(walls, millis(time.Since(began)))
		time.Sleep(time.Until(began.Add(interval)))
	}
	return millis(get(cpuTime(os.Getpid()))-before) / float64(n), walls
}
