// Bench measures rollcall from outside, every figure beside its floor: what the same work costs at
// the least, measured in the same run, taking turns.
//
//	go run -C internal/bench .
//	go run -C internal/bench . -sizes 340,10000 -modes static,drift -rounds 5 -json out.json
//	go run -C internal/bench . -sizes 1000000 -modes static -rounds 1
//	go run -C internal/bench . -modes glances -cells "340,2000:1,5:5,15,30,60:0.1,10:1,50" -for 5m
//
// Paths are relative to internal/bench then. It needs Linux.
//
// rollcall as it is built from this source, a nats-server with JetStream in files, and the
// simulated tenant, which serves pages that it has prepared, are processes of their own on this
// machine. Bench itself is the client that is the floor of polling: it reads the same pages and
// throws them away. While one is measured the others are idle, or stopped (SIGSTOP).
//
// # Modes
//
//	start    the first start on an empty stream, with which every size begins
//	static   sweeps that find nothing changed
//	drift    sweeps in which agentSignInDate of every online agent has grown
//	churn    25 agents a second flip; from the page that shows it to the event at a subscriber
//	mass     every agent flips at once
//	restart  SIGTERM and SIGKILL with everything published, ten agents flip meanwhile
//	history  every agent flips twenty times, which is a long day; then rollcall roster --at, report
//	         and history are asked about it; only where it is asked for
//	glances  agents flip one by one or in bursts, at the vendor's pace: from the flip to the event
//	         at a subscriber, with glances and with sweeps alone; only where it is asked for
//
// # What is measured
//
// CPU is user and system time of the whole process, by its CPU clock, from one watermark of a
// complete sweep to another. Time is what the watermarks say of their sweeps, or what passes until
// one arrives. Memory is the peak of the resident set. The rate limit is set so high that it never
// limits.
//
// What is asked about a day is measured from the start of the command to its end, rollcall and all,
// with the peak of its resident set; the floor is to read that day's events and throw them away.
//
// The floors are: the client; one commit (event, state, watermark) on an otherwise idle broker;
// atomic batches as full as a commit can be, of the very states that rollcall has published, each
// twice, on a stream with the same configuration; and reading the last message of every state's
// subject.
//
// A figure is the median over the rounds; a ratio is that of the two medians. The exit code is 1
// where something went wrong, not where a target was missed.
//
// Of glances, the figures are those of all rounds together. Each round of each cell has a tenant
// in this process, and two rollcalls with an embedded server each that poll it; they wait most of
// the time, so that many can run side by side. The floor is reckoned: half of one pass over the
// pages of those who are online, and one request.
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
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	do := run
	if len(os.Args) > 1 && os.Args[1] == roleTenant {
		do = serveTenant
	}
	err := do(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	sizes    []int
	modes    []string
	rounds   int
	quick    bool   // as little of everything as there can be, for a test
	rollcall string // a binary; empty: build it
	nats     string // a binary that takes -c; empty: build it
	json     string // where to write the report as JSON; empty: nowhere
	debug    bool   // tell where rollcall serves its profiles
	cells    []cell // of glances
	lasts    time.Duration
	beside   int // of the rounds of the cells, how many run side by side
}

var allModes = []string{"start", "static", "drift", "churn", "mass", "restart"}

const glancesMode = "glances" // it lasts longer than all others, and knows no sizes

func parseOptions(args []string, stderr io.Writer) (options, error) {
	o := options{}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	sizes := fs.String("sizes", "340,10000,100000", "numbers of agents; 1000000: 12 GB of disk")
	modes := fs.String("modes", strings.Join(allModes, ","),
		"what to measure; also: history, glances")
	fs.IntVar(&o.rounds, "rounds", 3, "how often everything is measured; figures are medians")
	fs.StringVar(&o.rollcall, "rollcall", "", "measure this binary instead of building one")
	fs.StringVar(&o.json, "json", "", "write the report to this file, as JSON")
	fs.BoolVar(&o.debug, "debug", false, "log at debug level, and tell where profiles are")
	cells := fs.String("cells", targetCells, "of glances: agents:requests a second:per cent "+
		"online:flips a second[:flips at once], each one or several, with commas")
	fs.DurationVar(&o.lasts, "for", 10*time.Minute, "of glances: how long agents flip")
	fs.IntVar(&o.beside, "beside", 10, "of glances: how many cells run side by side")
	err := fs.Parse(args)
	if err != nil {
		return o, err
	}
	if o.cells, err = parseCells(*cells); err != nil {
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
		if !slices.Contains(allModes, m) && m != historyMode && m != glancesMode {
			return o, fmt.Errorf("-modes: there is no %q, only %s, %s and %s", m,
				strings.Join(allModes, ", "), historyMode, glancesMode)
		}
		o.modes = append(o.modes, m)
	}
	if o.rounds < 1 || o.beside < 1 {
		return o, errors.New("-rounds and -beside are at least 1")
	}
	return o, nil
}

// run measures, and writes what has been measured, also before something went wrong.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	r := newReport(o)
	err = measure(ctx, o, r, stderr)
	r.finish()
	if werr := r.write(stdout); werr != nil {
		err = errors.Join(err, werr)
	}
	if o.json != "" {
		b, jerr := json.MarshalIndent(r, "", "  ")
		if jerr = errors.Join(jerr, os.WriteFile(o.json, append(b, '\n'), 0o644)); jerr != nil {
			err = errors.Join(err, fmt.Errorf("write the report to %s: %w", o.json, jerr))
		}
	}
	return err
}
