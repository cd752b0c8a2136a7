package main

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/rollcall-events/rollcall/schemas"
)

// Stamped by the linker (-X main.version=… -X main.commit=…); empty in a plain go build, which
// knows both from the checkout.
var version, commit string

// rootCommand is the command line. Each command stands in a file of its own, with its flags.
func rootCommand() *cobra.Command {
	daemon := runCommand()
	root := &cobra.Command{
		Use:   "rollcall",
		Short: "Turns the agent listing of an ISDP+ tenant into events on NATS JetStream",
		Long: `rollcall polls an ISDP+ tenant's agents and writes every sign-in, sign-out and
change, once and in order, to the NATS JetStream stream ` + schemas.Stream + `. Without
a command it runs the daemon. Every setting is an environment variable;
docs/settings.md lists them.`,
		Version:       versionText(),
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          daemon.RunE,
	}
	root.SetVersionTemplate("{{.Version}}")
	root.AddCommand(daemon, checkCommand(), demoCommand(), schemaCommand(), watchCommand(),
		rosterCommand(), historyCommand(), reportCommand(),
		versionCommand())
	understand(root)
	return root
}

func runCommand() *cobra.Command {
	return &cobra.Command{
		Use:        "run",
		Short:      "Runs the daemon (the same as without a command)",
		SuggestFor: []string{"daemon", "serve", "start"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDaemon(cmd.Context(), cmd.ErrOrStderr())
		},
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Prints version, commit, Go and schema version (the same as --version)",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := io.WriteString(cmd.OutOrStdout(), versionText())
			return err
		},
	}
}

func versionText() string {
	v, c := build()
	return fmt.Sprintf("rollcall %s\ncommit %s\n%s %s/%s\nschema %s\n",
		v, c, runtime.Version(), runtime.GOOS, runtime.GOARCH, schemas.Version)
}

// helpCommand prints the help of a command.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [command]",
		Short: "Shows what a command does, and its flags",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) (
			[]cobra.Completion, cobra.ShellCompDirective,
		) {
			var names []cobra.Completion
			if of, rest, err := cmd.Root().Find(args); err == nil && len(rest) == 0 {
				for _, c := range of.Commands() {
					if c.IsAvailableCommand() {
						names = append(names, cobra.CompletionWithDesc(c.Name(), c.Short))
					}
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			of, rest, err := cmd.Root().Find(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return noCommand(of, rest[0])
			}
			of.InitDefaultHelpFlag()
			of.InitDefaultVersionFlag()
			return of.Help()
		},
	}
}
