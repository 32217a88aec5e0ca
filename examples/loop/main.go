// Loop shows the basic form, Parallel::Prefork's `$pm->start and next`. Start
// returns true in the manager and false in a worker, and main itself decides
// how to handle a signal.
//
// Run it, replace the workers, and stop it. PID is shown in its first line.
//
//	go run ./examples/loop
//	kill -HUP PID
//	kill PID
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
		syscall.SIGTERM: {Signal: syscall.SIGTERM}, // stop, as Ctrl-C does
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
	fmt.Println("manager: all workers have exited")
}

func work(w *prefork.Worker) {
	ctx := w.Context() // from now on the stop signal ends ctx instead of the process
	for n := 1; ; n++ {
		fmt.Printf("worker %d of generation %d: step %d\n", w.Slot(), w.Generation(), n)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done(): // the worker must stop, or the manager died
			fmt.Printf("worker %d of generation %d: stops\n", w.Slot(), w.Generation())
			return
		}
	}
}
