// Signals shows what a signal table can say: send to all workers at once, to one after another, or to nobody. What it
// sends to nobody only ends Start, and the main loop does what it likes: here more or fewer workers, and a list of them.
//
//	go run ./examples/signals
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
		syscall.SIGTERM: {Signal: syscall.SIGTERM},                                   // to all at once
		syscall.SIGHUP:  {Signal: syscall.SIGTERM, Interval: 500 * time.Millisecond}, // to one now, and one more each 0.5 s
		syscall.SIGUSR1: {},                                                          // to nobody
		syscall.SIGTTIN: {},
		syscall.SIGTTOU: {},
	}})
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() { // main runs in every worker too, up to StartFunc
		help(os.Getpid())
	}
	for pm.SignalReceived() != syscall.SIGTERM {
		pm.StartFunc(func(w *prefork.Worker) error {
			<-w.Context().Done()
			return nil
		})
		switch pm.SignalReceived() {
		case syscall.SIGTTIN:
			pm.SetMaxWorkers(pm.MaxWorkers() + 1)
		case syscall.SIGTTOU:
			pm.SetMaxWorkers(max(0, pm.MaxWorkers()-1)) // the worker in the highest slot is told to stop
		case syscall.SIGUSR1:
			fmt.Println(pm.Snapshot())
		}
	}
	pm.WaitAllChildren(context.Background())
}

func help(pid int) {
	fmt.Printf("try:  kill -USR1 %d   list the workers\n", pid)
	fmt.Printf("      kill -TTIN %d   one more\n", pid)
	fmt.Printf("      kill -TTOU %d   one fewer\n", pid)
	fmt.Printf("      kill -HUP %d    replace them, one by one\n", pid)
	fmt.Printf("      kill %d         stop; so does Ctrl-C\n", pid)
}
