//go:build !unix

package chain

import (
	"fmt"
	"io"
)

// Main is for Unix systems.
func Main(name string, _ []string, errs io.Writer) (status int) {
	fmt.Fprintf(errs, "%s: this system cannot execute a program in the place of another\n", name)
	return 111
}

// Knows reports whether a program of this name is one that Main acts as.
func Knows(string) bool { return false }

// Usage returns how a program of this name is called.
func Usage(name string) string { return "usage: " + name + " PROGRAM [ARG...]" }
