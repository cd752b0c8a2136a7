package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rollcall-events/rollcall/schemas"
)

// schemaCommand prints the documents that describe what rollcall publishes.
func schemaCommand() *cobra.Command {
	names := schemas.Documents()
	var fixtures bool
	cmd := &cobra.Command{
		DisableFlagsInUseLine: true,

		Use:   "schema [" + strings.Join(names, "|") + "] [--fixtures]",
		Short: "Prints a schema of what rollcall publishes; without a name, the names",
		Long: `Prints a schema of what rollcall publishes: event, watermark, health and
unobserved are JSON Schemas (2020-12) of the messages' bodies, query is that of
questions and their answers, asyncapi is an AsyncAPI 3 document of all subjects.
Without a name it prints the names, a line each.

With --fixtures it prints messages instead, as version 1 writes them, for tests of
what reads them: a JSON object a line, with name, subject, contentType and body,
the message's text.`,
		ValidArgs: names,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.MaximumNArgs(1)(cmd, args); err != nil {
				return err
			}
			if len(args) == 1 {
				if fixtures {
					return fmt.Errorf("--fixtures are messages of all kinds: leave %q out", args[0])
				}
				if _, ok := schemas.Document(args[0]); !ok {
					return fmt.Errorf("there is no schema %q; there are %s",
						args[0], strings.Join(names, ", "))
				}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if fixtures {
				return printFixtures(cmd.OutOrStdout())
			}
			if len(args) == 0 {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), strings.Join(names, "\n"))
				return err
			}
			text, _ := schemas.Document(args[0]) // Args has looked
			_, err := cmd.OutOrStdout().Write(text)
			return err
		},
	}
	cmd.Flags().BoolVar(&fixtures, "fixtures", false,
		"print messages for tests of your own, a JSON object a line")
	return cmd
}

// printFixtures prints each fixture in a line, its body as a string, byte for byte.
func printFixtures(w io.Writer) error {
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	for _, f := range schemas.Fixtures() {
		err := out.Encode(struct {
			Name        string `json:"name"`
			Subject     string `json:"subject"`
			ContentType string `json:"contentType"`
			Body        string `json:"body"`
		}{f.Name, f.Subject, f.ContentType, string(f.Body)})
		if err != nil {
			return err
		}
	}
	return nil
}
