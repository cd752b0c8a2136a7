package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rollcall-events/rollcall/schemas"
)

// schemaCommand prints the documents that describe what rollcall publishes.
func schemaCommand() *cobra.Command {
	names := schemas.Documents()
	return &cobra.Command{
		Use:   "schema [" + strings.Join(names, "|") + "]",
		Short: "Prints a schema of what rollcall publishes; without a name, the names",
		Long: `Prints a schema of what rollcall publishes: event, watermark, health and
unobserved are JSON Schemas (2020-12) of the messages' bodies, asyncapi is an
AsyncAPI 3 document of all subjects. Without a name it prints the names, a line each.`,
		ValidArgs: names,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.MaximumNArgs(1)(cmd, args); err != nil {
				return err
			}
			if len(args) == 1 {
				if _, ok := schemas.Document(args[0]); !ok {
					return fmt.Errorf("there is no schema %q; there are %s",
						args[0], strings.Join(names, ", "))
				}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), strings.Join(names, "\n"))
				return err
			}
			text, _ := schemas.Document(args[0]) // Args has looked
			_, err := cmd.OutOrStdout().Write(text)
			return err
		},
	}
}
