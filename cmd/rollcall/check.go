package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/rollcall-events/rollcall/internal/check"
	"github.com/rollcall-events/rollcall/poller/isdp"
)

// checkCommand tries the settings, or asks a running rollcall whether it is ready.
func checkCommand() *cobra.Command {
	var ready, asJSON bool
	var context string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Tries the settings, and says what is wrong and how to mend it; changes nothing",
		Long: `Tries everything that the daemon would use: settings, DNS, TLS, token, first
page, rate, NATS, stream, permissions, lease and watermark, a line each. It
changes nothing: the vendor sees one token call and one call for the first page
(of each of ROLLCALL_ISDP_TYPES, where that is set), and NATS stores nothing.

Exit code 0: nothing failed, warnings included. 1: something failed that may
mend. 2: a setting has to change.`,
		SuggestFor: []string{"doctor", "test", "validate", "verify"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ready {
				return runReady(cmd.Context(), cmd.OutOrStdout(), asJSON)
			}
			return runCheck(cmd.Context(), context, cmd.OutOrStdout(), asJSON)
		},
	}
	cmd.Flags().BoolVar(&ready, "ready", false,
		"only ask the rollcall that runs on this machine whether it is ready (its /readyz)")
	contextFlag(cmd, &context)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document instead of lines")
	return cmd
}

// reporting collects a check's results and prints them: as they come, or as one document in the
// end.
type reporting struct {
	check.Report
	printer check.Printer
	asJSON  bool
	err     error // the first of writing
}

func newReporting(w io.Writer, asJSON bool) *reporting {
	r := &reporting{printer: check.Printer{W: w}, asJSON: asJSON}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		r.printer.Colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
		if width, _, err := term.GetSize(int(f.Fd())); err == nil {
			r.printer.Width = min(width, 120)
		}
	}
	return r
}

func (r *reporting) add(res check.Result) {
	r.Add(res)
	if !r.asJSON {
		r.err = errors.Join(r.err, r.printer.Print(res))
	}
}

// end writes what is left to write. Its error carries the exit code.
func (r *reporting) end() error {
	if r.asJSON {
		r.err = r.JSON(r.printer.W)
	} else {
		r.err = errors.Join(r.err, r.printer.Summary(&r.Report))
	}
	if r.err != nil {
		return fmt.Errorf("print the report: %w", r.err)
	}
	if r.Exit != 0 {
		return reported{r.Exit}
	}
	return nil
}

func runCheck(ctx context.Context, natsContext string, w io.Writer, asJSON bool) error {
	r := newReporting(w, asJSON)
	s, warnings, err := loadSettingsIn(natsContext, withVendor)
	r.settings(s, warnings, err)
	if err == nil {
		check.Run(ctx, s.check(), r.add)
	}
	return r.end()
}

// settings reports how the settings were read.
func (r *reporting) settings(s *settings, warnings []string, err error) {
	const name = "settings"
	for _, w := range warnings {
		r.add(check.Result{Name: name, Level: check.Warning, Text: w})
	}
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			r.add(check.Result{Name: name, Level: check.Failure, Setting: true,
				Text: strings.TrimSuffix(line, "\n")})
		}
		return
	}
	where := "NATS"
	if s.embedded() {
		where = "the embedded NATS server"
	}
	r.add(check.Result{Name: name, Level: check.OK,
		Text: fmt.Sprintf("usable: %s every %s, the stream in %s",
			s.ISDPURL, s.PollInterval, where)})
}

// check is what there is to try.
func (s *settings) check() check.Config {
	discard := slog.New(slog.DiscardHandler)
	c := check.Config{
		Vendor:    s.vendor(discard),
		Poller:    s.poller(discard),
		Publisher: s.publisher(s.TenantID, discard),
		Interval:  s.PollInterval,
		Embedded:  s.natsd(discard),
		Secrets:   s.secrets(),
	}
	if !s.embedded() {
		c.NATS = s.natsServers(discard)
	}
	for _, l := range []check.Listen{
		{Field: "HTTPListen", Addr: s.HTTPListen}, {Field: "OpsListen", Addr: s.OpsListen},
	} {
		if l.Addr != "" {
			c.Listens = append(c.Listens, l)
		}
	}
	if u, err := url.Parse(s.ISDPURL); err == nil {
		c.Proxy, _ = isdp.Proxy(u) // the settings have been judged already
	}
	return c
}

// secrets is everything that no output may hold.
func (s *settings) secrets() []string {
	out := []string{s.ISDPClientSecret.reveal(), s.ISDPPassword.reveal()}
	for server := range strings.SplitSeq(s.NATSURL.reveal(), ",") {
		u, err := url.Parse(strings.TrimSpace(server))
		if err != nil || u.User == nil {
			continue
		}
		if password, ok := u.User.Password(); ok {
			out = append(out, password, url.QueryEscape(password), url.PathEscape(password))
		} else {
			out = append(out, u.User.Username()) // a token
		}
	}
	return out
}

// runReady asks the rollcall that runs on this machine. It needs nothing of the vendor's settings.
func runReady(ctx context.Context, w io.Writer, asJSON bool) error {
	s, _, err := loadSettings(withoutVendor)
	if err != nil {
		return err
	}
	res := check.Result{Name: "ready", Level: check.Failure,
		Text: "rollcall serves no /readyz: ROLLCALL_HTTP_LISTEN is off; " +
			"set ROLLCALL_OPS_LISTEN, for the daemon and for this check"}
	if addr := cmp.Or(s.OpsListen, s.HTTPListen); addr != "" {
		res.Level, res.Text = check.Ready(ctx, check.BaseURL(addr))
	}
	r := newReporting(w, asJSON)
	r.Add(res)
	if asJSON {
		return r.end()
	}
	if _, err := fmt.Fprintln(w, res.Text); err != nil {
		return fmt.Errorf("print the answer: %w", err)
	}
	if r.Exit != 0 {
		return reported{r.Exit}
	}
	return nil
}
