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
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM},
			syscall.SIGUSR1: {Signal: syscall.SIGUSR1},
			syscall.SIGHUP:  {Signal: syscall.SIGTERM},
			syscall.SIGUSR2: {Rolling: true},
		},
	}
}

// runPool is a Manager whose workers take SIGUSR1 and wait for their end.
func runPool(cfg prefork.Config, status int) {
	usr1 := make(chan os.Signal, 1)
	if prefork.IsWorker() {
		signal.Notify(usr1, syscall.SIGUSR1) // before Start: until then the Manager holds it back
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

// processorTime is what this thread has used: what else runs on the machine does not count.
func processorTime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		log.Fatal(err)
	}
	return time.Duration(now.Nano())
}

// setStatus measures SetStatus for each line that comes on standard input, and says nanoseconds and allocations of one call.
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
