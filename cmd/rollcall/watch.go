package main

import (
	"context"
	"io"
	"os"
	"runtime"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/rollcall-events/rollcall/internal/watch"
	"github.com/rollcall-events/rollcall/schemas"
)

func watchCommand() *cobra.Command {
	var cfg watch.Config
	var context string
	cmd := &cobra.Command{
		DisableFlagsInUseLine: true,

		Use:   "watch [--tenant N] [--type T] [--context C]",
		Short: "Shows who is on duty, then every change, and whether that can be trusted",
		Long: `Shows the agents on duty, then a line for every change as it is committed. It
reads the stream ` + schemas.Stream + ` at ROLLCALL_NATS_URL or, where that is not set, of the
embedded server at ROLLCALL_NATS_LISTEN, and changes nothing.

On a terminal the last line says how old the picture is. It turns red when the
picture is STALE: then rollcall, NATS or the vendor is down, and nobody knows
who is on duty. Other lines say when that begins (STALE) and ends (FRESH), when
the vendor's listing can't be read (FAILING), when removals are held back
(HOLDING), and when the stream can't be read (LOST) and can again (BACK).

With --type it shows and counts the agents of those types only.`,
		Example: `  rollcall watch --type video
  rollcall watch --type safety,quality`,
		SuggestFor: []string{"follow", "show", "tail", "top"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runWatch(cmd.Context(), context, cfg, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	tenantFlag(cmd, &cfg.Tenant)
	typeFlag(cmd, &cfg.Types)
	contextFlag(cmd, &context)
	return cmd
}

// runWatch watches until ctx ends or nobody reads stdout any more.
func runWatch(
	ctx context.Context, natsContext string, cfg watch.Config, stdout, stderr io.Writer,
) error {
	onTerminal(&cfg, stdout)
	return withStream(ctx, "watch", natsContext, stderr,
		func(nc *nats.Conn, where string) error {
			cfg.Server, cfg.Out = where, stdout
			return watch.Run(ctx, nc, cfg)
		})
}

// onTerminal says what the terminal can do, if stdout is one.
func onTerminal(cfg *watch.Config, stdout io.Writer) {
	f, ok := stdout.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return
	}
	cfg.Width = func() int {
		columns, _, err := term.GetSize(int(f.Fd()))
		if err != nil || columns < 1 {
			return 80
		}
		return columns
	}
	// Windows sets no TERM; its newer terminal, which knows the sequences, WT_SESSION.
	kind := os.Getenv("TERM")
	cfg.Live = kind != "" && kind != "dumb" ||
		runtime.GOOS == "windows" && os.Getenv("WT_SESSION") != ""
	cfg.Color = cfg.Live && os.Getenv("NO_COLOR") == ""
}
