//go:build linux

// Journal is the program library that also links ops/journal.
package main

import (
	"os"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/journal"
)

func main() {
	os.Stdout.WriteString("main\n")
	if len(os.Args) > 1 { // never; the linker must not know
		j, _ := journal.Open(os.Args[1], journal.Config{})
		prefork.New(prefork.Config{Observe: journal.Observer(j, nil)})
	}
}
