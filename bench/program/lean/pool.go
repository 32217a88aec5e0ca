//go:build linux

package main

import (
	"bufio"
	"context"
	"log"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork"
)

func poolConfig(n, surge int) prefork.Config {
	return prefork.Config{
		MaxWorkers: n,
		MaxSurge:   surge,
		CrashLoop:  prefork.CrashLoop{Failures: -1}, // rows kill workers that have only started
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM},
			syscall.SIGUSR1: {Signal: syscall.SIGUSR1},
			syscall.SIGHUP:  {Signal: syscall.SIGTERM},
			syscall.SIGUSR2: {Rolling: true},
		},
	}
}

// runPool runs a Manager whose workers handle SIGUSR1 until they are stopped.
func runPool(cfg prefork.Config, status int) {
	usr1 := make(chan os.Signal, 1)
	if prefork.IsWorker() {
		signal.Notify(usr1, syscall.SIGUSR1) // before Start, as the Manager sends none until then
	}
	pm, err := prefork.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		line("ready %d", os.Getpid())
		if status > 0 {
			go setStatus(w, status)
		}
		for {
			select {
			case <-usr1:
				line("handled")
			case <-w.Context().Done():
				return nil
			}
		}
	}); err != nil {
		log.Fatal(err)
	}
}

// processorTime returns the processor time of this thread, which does not
// depend on other processes.
func processorTime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		log.Fatal(err)
	}
	return time.Duration(now.Nano())
}

// setStatus measures SetStatus for each line on standard input and prints the
// nanoseconds and the allocations of a call.
func setStatus(w *prefork.Worker, n int) {
	runtime.LockOSThread()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := processorTime()
		for i := range n {
			w.SetStatus("R_"[i&1])
		}
		took := processorTime() - began
		runtime.ReadMemStats(&after)
		line("status %g %g", float64(took)/float64(n), float64(after.Mallocs-before.Mallocs)/float64(n))
	}
}
