// Callback passes the work of a worker to StartFunc, as Parallel::Prefork does
// with `start(sub { ... })`. The manager reads the configuration before each
// generation of workers and passes it on. A hook prints the exit of each
// worker.
//
// Run it and wait some seconds for the first worker that fails. Then replace
// the workers, and stop the program. PID is shown in its first line.
//
//	go run ./examples/callback
//	kill -HUP PID
//	kill PID
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
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, // stop, as Ctrl-C does
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
			pm.Pass(configuration()) // once for each generation
		}
		pm.StartFunc(work)
	}
	pm.WaitAllChildren(context.Background())
}

// configuration returns the configuration, which a real program should read
// from a file.
func configuration() []byte {
	return fmt.Append(nil, "configuration of ", time.Now().Format("15:04:05.000"))
}

// work is called once in each worker, and should return soon after the worker's
// Context ends. If it returns nil, the worker exits with status 0. An error is
// logged, and the worker exits with status 1. In both cases the manager spawns
// another worker.
func work(w *prefork.Worker) error {
	ctx := w.Context() // from now on the stop signal ends ctx instead of the process
	fmt.Printf("worker %d of generation %d has the %s\n", w.Slot(), w.Generation(), w.Passed())
	select {
	case <-ctx.Done(): // the worker must stop, or the manager died
		return nil
	case <-time.After(time.Duration(2+w.Slot()) * time.Second):
		return errors.New("regular error, to show that the worker is replaced")
	}
}
