package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	_ "time/tzdata" // for --tz, where the machine has no time zones

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/rollcall-events/rollcall/internal/presence"
	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/schemas"
	"github.com/rollcall-events/rollcall/schemas/history"
)

// exitUntrusted is the exit code of an answer that was given and can't be trusted.
const exitUntrusted = 3

func rosterCommand() *cobra.Command {
	var q question
	var which presence.Which
	var at string
	cmd := &cobra.Command{
		DisableFlagsInUseLine: true,

		Use: "roster [--at TIME] [--type T] [--online] [--json] [--stream S] [--tz ZONE] " +
			"[--tenant N] [--context C]",
		Short: "Prints who is on duty, now or at a moment, and whether that can be trusted",
		Long: `Prints the agents that are there and who of them is on duty. It asks the stream
` + schemas.Stream + ` where watch finds it, and changes nothing.

With --at it prints the roster as it was at a moment of the last seven days, or
of an archive (--stream): agents that have changed or left since are as they
were then. STATE is "not known" where nobody can tell.

The exit code is 0 where the answer can be trusted, and 3 where it can't: the
picture is stale, or nobody could say at that moment who was on duty, or the
stream no longer tells. The answer is printed all the same, and the reason on
standard error.`,
		Example: `  rollcall roster --online --type video
  rollcall roster --at 2026-11-26T10:32:00+08:00
  rollcall roster --at "2026-11-26 10:32" --tz Asia/Shanghai --json`,
		SuggestFor: []string{"agents", "list", "who", "online"},
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if err = q.read(); err != nil {
				return err
			}
			if cmd.Flags().Changed("at") {
				if which.At, err = q.time("--at", at); err != nil {
					return err
				}
			} else if q.Stream != "" && q.Stream != schemas.Stream {
				return misused(cmd, "--stream needs --at: an archive does not say what is now")
			}
			return q.ask(cmd, func(ctx context.Context, nc *nats.Conn, cfg presence.Config) error {
				err := presence.Roster(ctx, nc, cfg, which)
				if errors.Is(err, history.ErrFuture) {
					return &setting.Error{Field: "--at", Value: at, Want: "a moment that is over"}
				}
				return err
			})
		},
	}
	cmd.Flags().StringVar(&at, "at", "", "the roster as it was at `TIME`")
	typeFlag(cmd, &which.Types)
	cmd.Flags().BoolVar(&which.Online, "online", false, "only agents on duty")
	q.flags(cmd)
	return cmd
}

func historyCommand() *cobra.Command {
	var q question
	var from, to string
	cmd := &cobra.Command{
		DisableFlagsInUseLine: true,

		Use: "history AGENT [--from TIME] [--to TIME] [--json] [--stream S] [--tz ZONE] " +
			"[--tenant N] [--context C]",
		Short: "Prints when an agent was on duty, and when nobody could tell",
		Long: `Prints when an agent was on duty, off duty, and when nobody could say, without a
gap: from seven days ago until now, unless --from and --to say otherwise. AGENT
is its agentId. It reads the stream ` + schemas.Stream + ` where watch finds it, or an
archive (--stream), and changes nothing.

WITHIN says how exact an end is: a change was seen then, and happened within
that time before it. "-" is exact: the time asked about ends there, or what is
known. "?" is where nobody knows.`,
		Example: `  rollcall history 17813
  rollcall history 17813 --from 2026-11-26 --to 2026-11-27 --tz Asia/Shanghai`,
		SuggestFor: []string{"intervals", "presence", "past", "log"},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return misused(cmd, "history needs one agent: its agentId")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			agent, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil {
				return &setting.Error{Field: "AGENT", Value: args[0],
					Want: "an agentId, which is a whole number: rollcall roster lists them"}
			}
			if err := q.read(); err != nil {
				return err
			}
			window := presence.Window{From: time.Now().Add(-7 * 24 * time.Hour)}
			if err := q.window(cmd, &window, from, to); err != nil {
				return err
			}
			return q.ask(cmd, func(ctx context.Context, nc *nats.Conn, cfg presence.Config) error {
				err := presence.History(ctx, nc, cfg, agent, window)
				if errors.Is(err, history.ErrNoAgent) {
					return &setting.Error{Field: "AGENT", Value: args[0],
						Want: "an agent that the stream knows: rollcall roster lists those of now"}
				}
				return refused(err, from, to)
			})
		},
	}
	windowFlags(cmd, &from, &to)
	q.flags(cmd)
	return cmd
}

func reportCommand() *cobra.Command {
	var q question
	var from, to string
	var types []string
	by := presence.ByAgent
	var asCSV bool
	cmd := &cobra.Command{
		DisableFlagsInUseLine: true,

		Use: "report --from TIME [--to TIME] [--by agent|type|area|hour] [--type T] " +
			"[--csv | --json] [--stream S] [--tz ZONE] [--tenant N] [--context C]",
		Short: "Prints how long agents were on duty, by agent, type, area or hour",
		Long: `Prints for each agent, or for all of a type, an area or an hour: time on duty,
sign-ins, the longest time on duty without a break, time off duty, and time for
which nobody can tell; UNOBSERVED is how much of the last is so because nobody
looked then. It reads the stream ` + schemas.Stream + ` where watch finds it, or an archive
(--stream), and changes nothing.

Agents that were never there in the time asked about are left out. Hours are
those of --tz, or of the machine. AVERAGE is how many were on duty on average.
In CSV and JSON, times are in seconds.`,
		Example: `  rollcall report --from 2026-11-26T08:00:00+08:00 --to 2026-11-26T20:00:00+08:00
  rollcall report --from 2026-11-26 --to 2026-11-27 --tz Asia/Shanghai --by hour --csv`,
		SuggestFor: []string{"sum", "stats", "summary"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := q.read(); err != nil {
				return err
			}
			if !cmd.Flags().Changed("from") {
				return &setting.Error{Field: "--from", Want: presence.WantTime}
			}
			if asCSV && q.asJSON {
				return misused(cmd, "--csv or --json, not both")
			}
			if asCSV {
				q.Format = presence.CSV
			}
			var window presence.Window
			if err := q.window(cmd, &window, from, to); err != nil {
				return err
			}
			if by == presence.ByHour && window.From.Before(end(window.To).AddDate(-1, 0, -1)) {
				return &setting.Error{Field: "--from", Value: from, Want: "a time at most a year " +
					"before --to, since --by hour has a row for each hour"}
			}
			return q.ask(cmd, func(ctx context.Context, nc *nats.Conn, cfg presence.Config) error {
				return refused(presence.Report(ctx, nc, cfg, window, by, types), from, to)
			})
		},
	}
	windowFlags(cmd, &from, &to)
	cmd.Flags().Var((*byValue)(&by), "by", "a row for each `agent`, type, area or hour")
	_ = cmd.RegisterFlagCompletionFunc("by", cobra.FixedCompletions(
		[]cobra.Completion{"agent", "type", "area", "hour"}, cobra.ShellCompDirectiveNoFileComp))
	typeFlag(cmd, &types)
	cmd.Flags().BoolVar(&asCSV, "csv", false, "write CSV")
	q.flags(cmd)
	return cmd
}

// end is the end of the time asked about; zero is now.
func end(to time.Time) time.Time {
	if to.IsZero() {
		return time.Now()
	}
	return to
}

// byValue is the value of --by.
type byValue presence.By

func (v *byValue) Type() string   { return "by" }
func (v *byValue) String() string { return string(*v) }

func (v *byValue) Set(s string) error {
	switch by := presence.By(s); by {
	case presence.ByAgent, presence.ByType, presence.ByArea, presence.ByHour:
		*v = byValue(by)
		return nil
	}
	return &setting.Error{Field: "--by", Value: s, Want: "agent, type, area or hour"}
}

func windowFlags(cmd *cobra.Command, from, to *string) {
	cmd.Flags().StringVar(from, "from", "", "from `TIME` on")
	cmd.Flags().StringVar(to, "to", "", "up to `TIME`; otherwise up to now")
}

// refused says which flag a question without an answer is about.
func refused(err error, from, to string) error {
	switch {
	case errors.Is(err, history.ErrFuture):
		return &setting.Error{Field: "--to", Value: to, Want: "a time that is over"}
	case errors.Is(err, history.ErrEmpty) && to == "":
		return &setting.Error{Field: "--from", Value: from, Want: "a time that is over"}
	case errors.Is(err, history.ErrEmpty):
		return &setting.Error{Field: "--to", Value: to, Want: "a time after --from"}
	}
	return err
}

// A question is what the commands have in common.
type question struct {
	presence.Config
	tz      string
	asJSON  bool
	context string // of the nats command line
}

func (q *question) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&q.asJSON, "json", false, "write JSON")
	cmd.Flags().StringVar(&q.Stream, "stream", "", "read stream `S`, an archive")
	cmd.Flags().StringVar(&q.tz, "tz", "",
		"the time zone, as in Asia/Shanghai or +08:00; otherwise the machine's")
	tenantFlag(cmd, &q.Tenant)
	contextFlag(cmd, &q.context)
}

// read takes the flags in.
func (q *question) read() (err error) {
	if q.Zone, err = presence.Zone(q.tz); err != nil {
		return &setting.Error{Field: "--tz", Value: q.tz, Want: err.Error()}
	}
	if q.asJSON {
		q.Format = presence.JSON
	}
	return nil
}

// time reads a time. Without --tz it has to say its zone: the machine's is a guess.
func (q *question) time(flag, s string) (time.Time, error) {
	zone := q.Zone
	if q.tz == "" {
		zone = nil
	}
	t, err := presence.ParseTime(s, zone)
	if err != nil {
		err = &setting.Error{Field: flag, Value: s, Want: err.Error()}
	}
	return t, err
}

func (q *question) window(cmd *cobra.Command, w *presence.Window, from, to string) (err error) {
	if cmd.Flags().Changed("from") {
		if w.From, err = q.time("--from", from); err != nil {
			return err
		}
	}
	if cmd.Flags().Changed("to") {
		if w.To, err = q.time("--to", to); err != nil {
			return err
		}
		if !cmd.Flags().Changed("from") {
			w.From = w.To.Add(-7 * 24 * time.Hour)
		}
	}
	return nil
}

// ask connects, asks and says how far the answer, which has been written, can be trusted.
func (q *question) ask(
	cmd *cobra.Command, do func(context.Context, *nats.Conn, presence.Config) error,
) error {
	ctx, stderr := cmd.Context(), cmd.ErrOrStderr()
	p := newProgress(os.Stderr)
	q.Progress = p.show
	out := bufio.NewWriter(&answer{cmd.OutOrStdout(), p})
	q.Out = out
	var answered atomic.Bool
	err := withStream(ctx, cmd.Name(), q.context, stderr, func(nc *nats.Conn, where string) error {
		q.Server = where
		err := do(ctx, nc, q.Config)
		if unwritten := out.Flush(); unwritten != nil {
			return unwritten
		}
		answered.Store(err == nil)
		return err
	})
	p.end()
	if err == nil && !answered.Load() { // a script must not take what is there for the answer
		return errors.New("interrupted before the answer was complete")
	}
	if bad, ok := errors.AsType[*presence.UntrustedError](err); ok {
		fmt.Fprintln(stderr, "rollcall:", bad)
		return reported{exitUntrusted}
	}
	if errors.Is(err, syscall.EPIPE) { // nobody wants to read more
		return nil
	}
	return err
}

// An answer is where the answer is written. The progress ends when it begins.
type answer struct {
	io.Writer
	p *progress
}

func (a *answer) Write(b []byte) (int, error) {
	a.p.end()
	return a.Writer.Write(b)
}

// A progress shows on a terminal how much has been read, from the first second on.
type progress struct {
	mu    sync.Mutex
	w     io.Writer // nil: there is no terminal, or an answer
	next  time.Time // when something is shown
	shown bool
}

func newProgress(f *os.File) *progress {
	p := &progress{next: time.Now().Add(time.Second)}
	if term.IsTerminal(int(f.Fd())) {
		p.w = f
	}
	return p
}

// show is called when messages have been read: how many, and how many there are.
func (p *progress) show(done, all uint64) {
	if done%64 != 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); p.w != nil && now.After(p.next) {
		p.next, p.shown = now.Add(200*time.Millisecond), true
		fmt.Fprintf(p.w, "\rReading: %d of %d messages\x1b[K", done, all)
	}
}

// end takes the progress away.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	p.w, p.shown = nil, false
}
