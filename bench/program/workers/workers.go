//go:build linux

// Package workers is what the programs library, operate and journal have in common.
package workers

import (
	"context"
	"log"
	"log/slog"
	"os"
	"strconv"

	"github.com/prefork-go/prefork"
)

// Run prints that main has begun. With a number of workers as the first argument,
// which a program whose start is measured does not have, it runs them, and prints
// when all are ready. Attach may change the configuration, and returns what is
// done with the Manager until the end.
func Run(attach func(*prefork.Config) (use func(*prefork.Manager) (detach func()))) {
	os.Stdout.WriteString("main\n")
	if len(os.Args) < 2 {
		return
	}
	workers, err := strconv.Atoi(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	cfg := prefork.Config{MaxWorkers: workers, Logger: slog.New(slog.DiscardHandler)}
	use := attach(&cfg)
	pm, err := prefork.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer use(pm)()
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

// Alone is the use of a Manager by a program that attaches nothing to it.
func Alone(*prefork.Manager) (detach func()) { return func() {} }
