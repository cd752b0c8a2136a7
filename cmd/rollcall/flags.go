package main

import (
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/rollcall-events/rollcall/internal/agenttype"
	"github.com/rollcall-events/rollcall/internal/setting"
)

// Flags that several commands have.

// tenantFlag adds --tenant.
func tenantFlag(cmd *cobra.Command, tenant *int64) {
	cmd.Flags().Int64Var(tenant, "tenant", 0, "tenant `N`; needed where the stream has several")
}

// typeFlag adds --type, with which only agents of some types are meant: tokens of subjects.
func typeFlag(cmd *cobra.Command, types *[]string) {
	cmd.Flags().Var((*typesValue)(types), "type", "only agents of type `T`: safety, quality, "+
		"patrol, video, or the type as agents have it; several with commas")
	// It fails only where there is no such flag, or where it has one already.
	_ = cmd.RegisterFlagCompletionFunc("type", completeTypes)
}

// typesValue is the value of --type.
type typesValue []string

func (v *typesValue) Type() string   { return "T" }
func (v *typesValue) String() string { return strings.Join(*v, ",") }

// Set takes types with commas between them; the flag may come several times.
func (v *typesValue) Set(typed string) error {
	names := strings.FieldsFunc(typed, isComma)
	if len(names) == 0 {
		names = []string{""}
	}
	for _, name := range names {
		token, meant, ok := agenttype.Parse(name)
		if !ok {
			want := agenttype.Want
			if meant != "" {
				want += "; did you mean " + meant + "?"
			}
			return &setting.Error{Field: "--type", Value: strings.TrimSpace(name), Want: want}
		}
		if !slices.Contains(*v, token) {
			*v = append(*v, token)
		}
	}
	return nil
}

// isComma knows the commas of Chinese keyboards too.
func isComma(c rune) bool { return c == ',' || c == '，' || c == '、' }

// completeTypes completes the last of the types that have been typed.
func completeTypes(_ *cobra.Command, _ []string, typed string) (
	[]cobra.Completion, cobra.ShellCompDirective,
) {
	last := strings.LastIndexFunc(typed, func(c rune) bool { return c == ',' }) + 1
	before, begun := typed[:last], typed[last:]
	var known []cobra.Completion
	for _, t := range agenttype.Types {
		name := t.Name
		if strings.IndexFunc(begun, unicode.IsDigit) == 0 {
			name = t.Token
		} else if strings.IndexFunc(begun, func(c rune) bool { return c > unicode.MaxASCII }) == 0 {
			name = t.Chinese
		}
		if strings.HasPrefix(name, begun) && !slices.Contains(strings.Split(before, ","), name) {
			known = append(known, cobra.CompletionWithDesc(before+name, t.Short+" ("+t.Token+")"))
		}
	}
	return known, cobra.ShellCompDirectiveNoFileComp
}
