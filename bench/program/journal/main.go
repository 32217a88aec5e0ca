//go:build linux

// Journal is the program library that also has a journal, in a directory that is
// its second argument.
package main

import (
	"log"
	"os"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/bench/program/workers"
	"github.com/prefork-go/prefork/ops/journal"
)

func main() {
	workers.Run(func(cfg *prefork.Config) func(*prefork.Manager) func() {
		j, err := journal.Open(os.Args[2], journal.Config{})
		if err != nil {
			log.Fatal(err)
		}
		cfg.Observe = journal.Observer(j, nil)
		return workers.Alone
	})
}
