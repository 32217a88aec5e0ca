//go:build linux

// Library is a program that runs as many workers as its argument says. Programs
// operate and journal are the same, with more packages of the library.
package main

import (
	"context"
	"log"
	"log/slog"
	"os"
	"strconv"

	"github.com/prefork-go/prefork"
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
