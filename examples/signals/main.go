// Signals shows the forms of a signal table. A signal can be forwarded to all
// workers at once, to one after another, or to none. A signal that is not
// forwarded only makes Start or StartFunc return, and the main loop handles it:
// here it changes the number of workers or lists them.
//
// Run it and send the signals that it prints. PID is shown there too.
//
//	go run ./examples/signals
//	kill -USR1 PID
//	kill -TTIN PID
//	kill -TTOU PID
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
		// To all workers at once.
		syscall.SIGTERM: {Signal: syscall.SIGTERM},
		// To one worker each 0.5 s.
		syscall.SIGHUP: {Signal: syscall.SIGTERM, Interval: 500 * time.Millisecond},
		// To none.
		syscall.SIGUSR1: {},
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
			pm.SetMaxWorkers(max(0, pm.MaxWorkers()-1)) // stops the worker in the highest slot
		case syscall.SIGUSR1:
			fmt.Println(pm.Snapshot())
		}
	}
	pm.WaitAllChildren(context.Background())
}

func help(pid int) {
	fmt.Printf("try:  kill -USR1 %d   list the workers\n", pid)
	fmt.Printf("      kill -TTIN %d   add a worker\n", pid)
	fmt.Printf("      kill -TTOU %d   remove a worker\n", pid)
	fmt.Printf("      kill -HUP %d    replace the workers one by one\n", pid)
	fmt.Printf("      kill %d         stop, as Ctrl-C does\n", pid)
}
