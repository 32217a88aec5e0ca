//go:build linux

// Journal is the program library that also has a journal, in a directory that is
// its second argument.
package main

import (
	"context"
	"log"
	"log/slog"
	"os"
	"strconv"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/journal"
)

func main() {
	os.Stdout.WriteString("main\n")
	if len(os.Args) < 3 {
		return
	}
	workers, err := strconv.Atoi(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	j, err := journal.Open(os.Args[2], journal.Config{})
	if err != nil {
		log.Fatal(err)
	}
	pm, err := prefork.New(prefork.Config{MaxWorkers: workers, Logger: slog.New(slog.DiscardHandler), Observe: journal.Observer(j, nil)})
	if err != nil {
		log.Fatal(err)
	}
	pm.Follow(func(r prefork.Record) {
		if _, ok := r.Event.(prefork.SettledEvent); ok {
			os.Stdout.WriteString("ready\n")
		}
	})
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		<-w.Context().Done()
		return nil
	}); err != nil {
		log.Fatal(err)
	}
}
