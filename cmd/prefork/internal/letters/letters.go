// Package letters parses the flags of verbs that take those of other programs, of
// one letter each.
package letters

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/pflag"
)

// New returns a set of flags that prints nothing.
func New(name string) *pflag.FlagSet {
	f := pflag.NewFlagSet(name, pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	return f
}

// Parse parses arguments. Its errors name a flag by its letter.
func Parse(f *pflag.FlagSet, args []string) error {
	err := f.Parse(args)
	bad, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return err
	}
	flag := bad.GetFlag()
	why := bad.Unwrap().Error()
	if kind := flag.Value.Type(); kind == "int" || kind == "int64" {
		why = "it is not a number"
	}
	return fmt.Errorf("-%s %s: %s", flag.Shorthand, bad.GetValue(), why)
}
