// Callback gives the worker's work to StartFunc, Parallel::Prefork's `start(sub { ... })`. The manager reads the
// configuration before each generation of workers and hands it on; a hook sees every worker that ended.
//
//	go run ./examples/callback
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
)

func main() {
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: 2,
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, // stop; so does Ctrl-C
			syscall.SIGHUP:  {Signal: syscall.SIGTERM}, // replace the workers
		},
		OnChildReap: func(_ *prefork.Manager, e prefork.Exit) { fmt.Println("manager:", e) },
	})
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() { // main runs in every worker too, up to StartFunc
		fmt.Printf("try:  kill -HUP %[1]d    kill %[1]d, or Ctrl-C\n", os.Getpid())
	}
	for pm.SignalReceived() != syscall.SIGTERM {
		if !prefork.IsWorker() {
			pm.Pass(configuration()) // read once for each generation
		}
		pm.StartFunc(work)
	}
	pm.WaitAllChildren(context.Background())
}

// configuration stands for one that is read from a file.
func configuration() []byte {
	return fmt.Append(nil, "configuration of ", time.Now().Format("15:04:05.000"))
}

// work is all that a worker does. nil ends it with exit code 0, an error is logged and ends it with 1: either way
// another takes its place.
func work(w *prefork.Worker) error {
	ctx := w.Context() // from here on the stop signal ends ctx, and no longer the process
	fmt.Printf("worker %d of generation %d has the %s\n", w.Slot(), w.Generation(), w.Passed())
	select {
	case <-ctx.Done(): // told to stop, or the manager died
		return nil
	case <-time.After(time.Duration(2+w.Slot()) * time.Second):
		return errors.New("an error now and then, to show that the worker is replaced")
	}
}
