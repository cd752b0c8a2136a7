// Bench measures rollcall from outside, every figure beside its floor: what the same work costs at
// the least, measured in the same run, taking turns.
//
//	go run -C internal/bench .
//	go run -C internal/bench . -sizes 340,10000 -modes static,drift -rounds 5 -json out.json
//	go run -C internal/bench . -sizes 1000000 -modes static -rounds 1
//
// Everything runs as a process of its own on this machine: rollcall as it is built from this
// source, a nats-server with JetStream in files, the simulated tenant, which serves pages that it
// has prepared, and the client that is the floor of polling: it reads the same pages and throws
// them away. While one is measured the others are idle, or stopped (SIGSTOP).
//
// # Modes
//
//	start    the first start on an empty log, after which everything else begins; always done, once where it is not asked for
//	static   sweeps that find nothing changed
//	drift    sweeps in which agentSignInDate of every online agent has grown
//	churn    25 agents a second flip; from the page that shows it to the event at a plain subscriber
//	mass     every agent flips at once
//	restart  SIGTERM and SIGKILL with everything published, ten agents flip meanwhile
//
// # What is measured
//
// CPU is user and system time of the whole process, by its CPU clock, from one watermark of a
// complete sweep to another. Time is what the watermarks say of their sweeps, or what passes until
// one arrives. Memory is the peak of the resident set. The rate limit is set so high that it never
// limits.
//
// The floors are: the client; one commit (event, state, watermark) on an otherwise idle broker;
// atomic batches as full as a commit can be, of the very states that rollcall has published, each
// twice, on a stream with the log's own configuration; and reading the last message of every
// state's subject.
//
// A figure is the median over the rounds; a ratio is that of the two medians. The exit code is 1
// where something went wrong, not where a target was missed.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	if ran, err := asRole(os.Args[1:]); ran {
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// asRole does the work of one of bench's own processes, where the arguments say that this is one.
func asRole(args []string) (ran bool, err error) {
	if len(args) == 0 {
		return false, nil
	}
	switch args[0] {
	case roleTenant:
		return true, serveTenant(args[1:], os.Stdin, os.Stdout)
	case roleClient:
		return true, runClient(args[1:], os.Stdin, os.Stdout)
	}
	return false, nil
}

// options are what the command line says.
type options struct {
	sizes       []int
	modes       []string
	rounds      int
	concurrency int
	quick       bool   // as little of everything as there can be, for a test
	rollcall    string // a binary; empty: build it
	nats        string // the same
	json        string // where to write the report as JSON; empty: nowhere
	profiles    string // a directory for profiles; empty: none are taken
}

var allModes = []string{"start", "static", "drift", "churn", "mass", "restart"}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	o := options{}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	sizes := fs.String("sizes", "340,10000,100000", "numbers of agents, separated by commas; 1000000 takes 12 GB of disk")
	modes := fs.String("modes", strings.Join(allModes, ","), "what to measure, separated by commas")
	fs.IntVar(&o.rounds, "rounds", 3, "how often everything is measured; figures are medians")
	fs.IntVar(&o.concurrency, "concurrency", 4, "pages in flight, of rollcall and of the client")
	fs.StringVar(&o.rollcall, "rollcall", "", "measure this binary instead of building one")
	fs.StringVar(&o.nats, "nats-server", "", "use this nats-server instead of building one")
	fs.StringVar(&o.json, "json", "", "write the report to this file, as JSON")
	fs.StringVar(&o.profiles, "profiles", "", "take CPU and heap profiles of rollcall too, into this directory")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q; see -help", fs.Arg(0))
	}
	for s := range strings.SplitSeq(*sizes, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || n < 1 || n > 2_000_000 {
			return o, fmt.Errorf("-sizes: %q is not a number of agents from 1 to 2000000", s)
		}
		o.sizes = append(o.sizes, n)
	}
	slices.Sort(o.sizes)
	o.sizes = slices.Compact(o.sizes)
	for m := range strings.SplitSeq(*modes, ",") {
		m = strings.TrimSpace(m)
		if !slices.Contains(allModes, m) {
			return o, fmt.Errorf("-modes: there is no %q, only %s", m, strings.Join(allModes, ", "))
		}
		o.modes = append(o.modes, m)
	}
	if o.rounds < 1 || o.concurrency < 1 {
		return o, errors.New("-rounds and -concurrency are at least 1")
	}
	return o, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	r, err := measure(ctx, o, stderr)
	if r == nil {
		return err
	}
	// What has been measured before something went wrong is worth a look all the same.
	if werr := r.write(stdout); werr != nil {
		return errors.Join(err, werr)
	}
	if o.json != "" {
		b, jerr := json.MarshalIndent(r, "", "  ")
		if jerr == nil {
			jerr = os.WriteFile(o.json, append(b, '\n'), 0o644)
		}
		if jerr != nil {
			err = errors.Join(err, fmt.Errorf("write the report to %s: %w", o.json, jerr))
		}
	}
	return err
}
