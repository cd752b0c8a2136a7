package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const roleClient = "client"

// order is what the client's process is told, a line each.
type order struct {
	Sweeps   int           `json:"sweeps"`
	Interval time.Duration `json:"interval"` // from the start of one to the start of the next
}

// done is what it answers.
type done struct {
	Walls []time.Duration `json:"walls"` // how long each sweep took
	Error string          `json:"error,omitempty"`
}

// reader reads all pages as rollcall asks for them, and throws them away.
type reader struct {
	http        *http.Client
	url         string
	token       string
	concurrency int
}

// post sends a request with rollcall's headers, and returns the answer's body.
func (r *reader) post(path, body string) (io.ReadCloser, error) {
	req, err := http.NewRequest(http.MethodPost, r.url+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "rollcall")
	if r.token != "" {
		req.Header.Set("Authorization", "bearer "+r.token)
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("%s: HTTP %d", path, resp.StatusCode)
	}
	return resp.Body, nil
}

func (r *reader) logIn() error {
	body, err := r.post(tokenPath, `{}`)
	if err != nil {
		return err
	}
	defer body.Close()
	var t struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(body).Decode(&t); err != nil {
		return fmt.Errorf("decode the token: %w", err)
	}
	r.token = t.Token
	return nil
}

// page reads one page and throws it away, but for the first bytes where head is given.
func (r *reader) page(n int, head []byte) error {
	body, err := r.post(agentsPath, `{"pageStart":`+strconv.Itoa(n)+`,"pageSize":`+strconv.Itoa(pageSize)+`}`)
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

// sweep reads page 0, which says how many there are, and then the others.
func (r *reader) sweep() error {
	head := make([]byte, 128)
	if err := r.page(0, head); err != nil {
		return err
	}
	total, ok := number(head, `"total_count":`)
	if !ok {
		return errors.New("page 0 has no total_count")
	}
	pages := (total + pageSize - 1) / pageSize
	todo, errs := make(chan int), make([]error, r.concurrency)
	var workers sync.WaitGroup
	for i := range r.concurrency {
		workers.Go(func() {
			for n := range todo {
				errs[i] = cmp.Or(errs[i], r.page(n, nil))
			}
		})
	}
	for n := 1; n < pages; n++ {
		todo <- n
	}
	close(todo)
	workers.Wait()
	return errors.Join(errs...)
}

// runClient is the client's process: it sweeps as the lines on stdin say, until they end.
func runClient(args []string, stdin io.Reader, stdout io.Writer) error {
	fs := flag.NewFlagSet(roleClient, flag.ContinueOnError)
	url := fs.String("url", "", "")
	concurrency := fs.Int("concurrency", 4, "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	r := &reader{url: *url, concurrency: *concurrency, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: *concurrency}}}
	if err := r.logIn(); err != nil {
		return err
	}
	lines, answers := json.NewDecoder(stdin), json.NewEncoder(stdout)
	for {
		var o order
		if err := lines.Decode(&o); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		d := done{Walls: make([]time.Duration, 0, o.Sweeps)}
		for range o.Sweeps {
			began := time.Now()
			if err := r.sweep(); err != nil {
				d.Error = err.Error()
				break
			}
			d.Walls = append(d.Walls, time.Since(began))
			time.Sleep(time.Until(began.Add(o.Interval)))
		}
		if err := answers.Encode(d); err != nil {
			return err
		}
	}
}

// A floorClient is the client's process, as bench sees it.
type floorClient struct {
	*process
	answers *json.Decoder
}

func startClient(self string, env []string, url string, concurrency int) (*floorClient, error) {
	p, err := start("the client", self, env, true, roleClient, "-url", url, "-concurrency", strconv.Itoa(concurrency))
	if err != nil {
		return nil, err
	}
	return &floorClient{p, json.NewDecoder(bufio.NewReader(p.stdout))}, nil
}

// sweep has the client sweep n times, and returns the CPU that a sweep took and the times that the
// sweeps took.
func (c *floorClient) sweep(n int, interval time.Duration) (cpu time.Duration, walls []time.Duration, err error) {
	before, err := c.cpu()
	if err != nil {
		return 0, nil, err
	}
	if err := json.NewEncoder(c.stdin).Encode(order{n, interval}); err != nil {
		return 0, nil, fmt.Errorf("tell the client to sweep: %w", err)
	}
	var d done
	if err := c.answers.Decode(&d); err != nil {
		return 0, nil, fmt.Errorf("the client's answer: %w", err)
	}
	if d.Error != "" {
		return 0, nil, fmt.Errorf("the client: %s", d.Error)
	}
	after, err := c.cpu()
	return (after - before) / time.Duration(n), d.Walls, err
}
