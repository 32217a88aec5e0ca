package launch

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// maxArgument is the length of an argument that Linux refuses, with its final 0.
const maxArgument = 128<<10 - 1

// CheckArgs checks a Command with its arguments; nil is none.
func CheckArgs(args []string) error {
	switch {
	case args == nil:
	case len(args) == 0 || args[0] == "":
		return errors.New("it names no program; leave it nil to run this program as the worker")
	case slices.ContainsFunc(args, func(arg string) bool { return strings.IndexByte(arg, 0) >= 0 }):
		return fmt.Errorf("%q has a zero byte, which no argument of a process can have", args)
	case slices.ContainsFunc(args, func(arg string) bool { return len(arg) >= maxArgument }):
		return fmt.Errorf("an argument has %d bytes or more, which Linux does not pass to a process: pass a file", maxArgument)
	}
	return nil
}
