// Loop is the bare form, Parallel::Prefork's `$pm->start and next`: Start returns true in the manager and false in a
// worker, and what happens after a signal is up to a few plain lines of main.
//
//	go run ./examples/loop
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
)

func main() {
	pm, err := prefork.New(prefork.Config{MaxWorkers: 3, TrapSignals: prefork.Signals{
		syscall.SIGTERM: {Signal: syscall.SIGTERM}, // stop; so does Ctrl-C
		syscall.SIGHUP:  {Signal: syscall.SIGTERM}, // replace the workers
	}})
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() { // main runs in every worker too, up to Start
		fmt.Printf("try:  kill -HUP %[1]d    kill %[1]d, or Ctrl-C\n", os.Getpid())
	}
	for pm.SignalReceived() != syscall.SIGTERM {
		if pm.Start() {
			fmt.Println("manager: received", pm.SignalReceived())
			continue
		}
		work(pm.Worker()) // the worker, from here to Finish
		pm.Finish(0)
	}
	pm.WaitAllChildren(context.Background())
	fmt.Println("manager: all workers are gone")
}

func work(w *prefork.Worker) {
	ctx := w.Context() // from here on the stop signal ends ctx, and no longer the process
	for n := 1; ; n++ {
		fmt.Printf("worker %d of generation %d: step %d\n", w.Slot(), w.Generation(), n)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done(): // told to stop, or the manager died
			fmt.Printf("worker %d of generation %d: stops\n", w.Slot(), w.Generation())
			return
		}
	}
}
