package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/rollcall-events/rollcall/internal/setting"
)

// A usageError says what of a command line can't be understood.
type usageError struct {
	of   *cobra.Command
	text string
}

func (e *usageError) Error() string {
	see := ": see "
	if strings.HasSuffix(e.text, "?") {
		see = " See "
	}
	return e.text + see + e.of.CommandPath() + " --help"
}

// misused returns a usageError. A flag's value that can't be used is a [*setting.Error] instead,
// with the flag as its Field.
func misused(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{cmd, fmt.Sprintf(format, args...)}
}

// understand has root and its commands say what they can't understand. A command that does not say
// which arguments it takes takes none.
func understand(root *cobra.Command) {
	root.SetHelpCommand(helpCommand())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	root.SetFlagErrorFunc(flagError)
	root.InitDefaultVersionFlag()
	for _, cmd := range append(all(root), root) {
		if !cmd.Runnable() { // it has commands only
			cmd.Args = nil
			cmd.RunE = func(cmd *cobra.Command, _ []string) error {
				return misused(cmd, "%s needs a command", cmd.CommandPath())
			}
		}
		args := cmd.Args
		cmd.Args = func(cmd *cobra.Command, given []string) error {
			if args == nil && len(given) > 0 {
				return noCommand(cmd, given[0])
			}
			if args == nil {
				return nil
			}
			err := args(cmd, given)
			if _, ok := errors.AsType[*usageError](err); ok || err == nil {
				return err
			}
			return misused(cmd, "%v", err)
		}
		if cmd.Name() == "completion" {
			cmd.Short = "Prints a script that completes commands and flags in a shell"
		}
	}
}

// all are the commands below a command.
func all(cmd *cobra.Command) (below []*cobra.Command) {
	for _, c := range cmd.Commands() {
		below = append(append(below, c), all(c)...)
	}
	return below
}

// noCommand says that there is no such command, and which may be meant.
func noCommand(of *cobra.Command, name string) error {
	if !of.HasSubCommands() {
		return misused(of, "%s takes no argument such as %q", of.CommandPath(), name)
	}
	text := fmt.Sprintf("%s has no command %q", of.CommandPath(), name)
	of.SuggestionsMinimumDistance = 2 // letters that may differ
	if meant := of.SuggestionsFor(name); len(meant) > 0 {
		text += "; did you mean " + strings.Join(meant, " or ") + "?"
	}
	return misused(of, "%s", text)
}

// flagError says what is wrong with a flag.
func flagError(cmd *cobra.Command, err error) error {
	if unusable, ok := errors.AsType[*setting.Error](err); ok {
		return unusable
	}
	if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		want := map[string]string{"int": "a whole number",
			"int64": "a whole number", "uint64": "a whole number, 0 or more",
			"float64": "a number", "bool": "true or false"}[bad.GetFlag().Value.Type()]
		return &setting.Error{Field: "--" + bad.GetFlag().Name, Value: bad.GetValue(),
			Want: cmp.Or(want, bad.Unwrap().Error())}
	}
	if none, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return misused(cmd, "--%s needs a value", none.GetFlag().Name)
	}
	unknown, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok {
		return misused(cmd, "%v", err)
	}
	if args := cmd.Flags().Args(); cmd.HasSubCommands() && len(args) > 0 {
		return noCommand(cmd, args[0]) // its flags can't be known
	}
	name, text := unknown.GetSpecifiedName(), "--"+unknown.GetSpecifiedName()
	if short := unknown.GetSpecifiedShortnames(); short != "" { // -type is taken for -t -y -p -e
		name, text = short, "-"+short
	}
	text = fmt.Sprintf("%s has no flag %s", cmd.CommandPath(), text)
	var known, owners []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		known = append(known, f.Name)
		if len(name) == 1 && strings.HasPrefix(f.Name, name) { // -t
			owners = append(owners, "--"+f.Name)
		}
	})
	for _, c := range append(all(cmd.Root()), cmd.Root()) {
		if c.Flags().Lookup(name) != nil && c != cmd {
			owners = append(owners, c.CommandPath()+" --"+name)
		}
	}
	switch meant := setting.Nearest(name, known); {
	case meant != "":
		text += "; did you mean --" + meant + "?"
	case len(owners) > 0:
		text += "; did you mean " + strings.Join(owners, " or ") + "?"
	}
	return misused(cmd, "%s", text)
}
