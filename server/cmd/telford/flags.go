package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// setting is the flag of one setting of the runtime. What it was given is judged with
// the other layers, so that all mistakes are told at once.
type setting struct {
	text string
	kind string
}

// String implements pflag.Value.
func (s *setting) String() string { return s.text }

// Set implements pflag.Value.
func (s *setting) Set(text string) error {
	s.text = text
	return nil
}

// Type implements pflag.Value; it stands for the value in the help.
func (s *setting) Type() string { return s.kind }

// unfit is a flag of all commands that means nothing to one of them.
type unfit struct{ command, kind string }

// String implements pflag.Value.
func (unfit) String() string { return "" }

// Set implements pflag.Value: it refuses.
func (u unfit) Set(string) error { return fmt.Errorf("telford %s does not take it", u.command) }

// Type implements pflag.Value.
func (u unfit) Type() string { return u.kind }

// alone has c, which asks no runtime, refuse the flags of those that do.
func alone(c *cobra.Command) *cobra.Command {
	f := c.Flags()
	f.Var(unfit{c.Name(), "string"}, "namespace", "")
	f.Var(unfit{c.Name(), "bool"}, "json", "")
	f.Lookup("json").NoOptDefVal = "true"
	for _, name := range []string{"namespace", "json"} {
		f.Lookup(name).Hidden = true
	}
	return c
}
