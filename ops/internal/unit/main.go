//go:build unix

// Unit is the program of scripts/systemd-root: a pool with the one line. Its
// arguments are a directory, and "reaper" for a manager below a reaper. If the
// directory has a file crash, workers crash before they are ready.
package main

import (
	"context"
	"errors"
	"log"
	"os"
	"path/filepath"
	"syscall"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops"
)

func main() {
	pm, err := prefork.New(prefork.Config{
		Name: "web", MaxWorkers: 2, Reaper: len(os.Args) > 2, Readiness: prefork.Readiness{Explicit: true},
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, syscall.SIGHUP: {Rolling: true}, syscall.SIGUSR2: {Upgrade: true},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer ops.Attach(pm)()
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		if _, err := os.Stat(filepath.Join(os.Args[1], "crash")); err == nil {
			return errors.New("crash")
		}
		ctx := w.Context()
		w.Ready()
		<-ctx.Done()
		return nil
	}); err != nil {
		log.Print(err)
	}
}
