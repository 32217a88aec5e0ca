//go:build linux

// Library is a program that links the library, for comparison with the program
// journal.
package main

import (
	"os"

	"github.com/prefork-go/prefork"
)

func main() {
	os.Stdout.WriteString("main\n")
	if len(os.Args) > 1 { // never; the linker must not know
		prefork.New(prefork.Config{})
	}
}
