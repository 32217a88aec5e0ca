//go:build linux

// Operate is the program library that also calls ops.Attach. With a number of
// workers as its argument it runs them, and prints when all are ready.
package main

import (
	"context"
	"log"
	"log/slog"
	"os"
	"strconv"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops"
)

func main() {
	os.Stdout.WriteString("main\n")
	if len(os.Args) < 2 {
		return
	}
	workers, err := strconv.Atoi(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	pm, err := prefork.New(prefork.Config{MaxWorkers: workers, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	defer ops.Attach(pm)()
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
