package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/rollcall-events/rollcall/schemas"
)

// Stamped by the linker (-X main.version=… -X main.commit=…); empty in a plain go build, which
// knows both from the checkout.
var version, commit string

// errUsage marks a command line that can't be understood.
var errUsage = errors.New("see rollcall --help")

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "rollcall",
		Short: "Turns the agent listing of an ISDP+ tenant into events on NATS JetStream",
		Long: `rollcall polls an ISDP+ tenant's agents and writes every sign-in, sign-out and
change, once and in order, to the NATS JetStream stream ` + schemas.Stream + `. Without
a command it runs the daemon. Every setting is an environment variable;
docs/settings.md lists them.`,
		Args:          usage(cobra.NoArgs),
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDaemon(cmd.Context(), cmd.ErrOrStderr())
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return fmt.Errorf("%w: %w", err, errUsage)
	})

	var simOnly bool
	var simListen string
	demo := &cobra.Command{
		Use:   "demo",
		Short: "Runs the whole thing on this machine, with a simulated tenant and nothing to set",
		Args:  usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, _, err := net.SplitHostPort(simListen); err != nil {
				return fmt.Errorf("--sim-listen is %q: want host:port, such as 127.0.0.1:8180: %w",
					simListen, errUsage)
			}
			return runDemo(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), simListen, simOnly)
		},
	}
	demo.Flags().BoolVar(&simOnly, "sim-only", false,
		"serve the simulated tenant alone, for tests of your own")
	demo.Flags().StringVar(&simListen, "sim-listen", "127.0.0.1:0",
		"where the simulated tenant listens; port 0 takes a free one")

	root.AddCommand(
		&cobra.Command{
			Use:   "run",
			Short: "Runs the daemon (the same as without a command)",
			Args:  usage(cobra.NoArgs),
			RunE:  root.RunE,
		},
		checkCommand(),
		demo,
		schemaCommand(),
		watchCommand(),
		&cobra.Command{
			Use:   "version",
			Short: "Prints version, commit, Go and schema version",
			Args:  usage(cobra.NoArgs),
			RunE: func(cmd *cobra.Command, _ []string) error {
				return printVersion(cmd.OutOrStdout())
			},
		},
	)
	return root
}

// usage marks what a cobra argument check finds as a mistake in the command line.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return fmt.Errorf("%w: %w", err, errUsage)
		}
		return nil
	}
}

func printVersion(w io.Writer) error {
	v, c := build()
	_, err := fmt.Fprintf(w, "rollcall %s\ncommit %s\n%s %s/%s\nschema %s\n",
		v, c, runtime.Version(), runtime.GOOS, runtime.GOARCH, schemas.Version)
	return err
}
