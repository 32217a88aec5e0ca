//go:build linux

// Lean is what package bench measures the library on: a program that links the library and nothing else. Its first
// argument says which part it plays.
//
//	pool   a Manager with its workers
//	hand   the floor: a loop that starts processes, waits for them and signals them, without the library
//	child  such a process
//
// Whatever happens is a line on standard output: "main" at the first line of main, "ready", "handled".
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/prefork-go/prefork"
)

func main() {
	if len(os.Args) < 2 {
		log.Fatal("lean: for package bench; see go run ./bench -h")
	}
	flags := flag.NewFlagSet("lean", flag.ExitOnError)
	n := flags.Int("n", 1, "number of processes")
	spare := flags.Int("spare", 0, "MinSpareWorkers")
	standby := flags.Int("standby", 0, "Standby")
	surge := flags.Int("surge", 0, "MaxSurge")
	status := flags.Int("status", 0, "have the worker call SetStatus so many times for each line that it reads")
	stuck := flags.Duration("stuck", 0, "Stuck.Timeout")
	unpaced := flags.Bool("unpaced", false, "ErrRespawnInterval -1")
	wired := flags.Bool("wired", false, "by hand: give each process a socket on which it hears of its parent's death, as workers do")
	parked := flags.Bool("parked", false, "by hand: keep a process that waits to be told that it is to begin; of such a process: wait")
	again := flags.Bool("again", false, "by hand: start another process when one ends")
	if os.Args[1] == "child" || prefork.IsWorker() {
		line("main %d", os.Getpid())
	}
	flags.Parse(os.Args[2:])
	switch part := os.Args[1]; part {
	case "pool":
		cfg := poolConfig(*n, *surge)
		cfg.MinSpareWorkers = *spare
		cfg.Stuck.Timeout = *stuck
		cfg.Standby = *standby
		if *unpaced {
			cfg.ErrRespawnInterval = -1
		}
		runPool(cfg, *status)
	case "hand":
		if *parked {
			parkedByHand()
		}
		byHand(*n, *again, *wired)
	case "child":
		if *parked {
			syscall.Read(0, make([]byte, 1))
		}
		child(*wired)
	default:
		log.Fatalf("lean: there is no part %q", part)
	}
}

// line writes one line in one write, so that those of many processes do not mix.
func line(format string, args ...any) { fmt.Fprintf(os.Stdout, format+"\n", args...) }

// child is what the floor starts: it takes the signals that the workers of a pool take.
func child(wired bool) {
	if wired {
		go func() {
			os.NewFile(3, "socket").Read(make([]byte, 1)) // without blocking a thread, as the socket does not block
			os.Exit(1)
		}()
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGTERM)
	line("ready %d", os.Getpid())
	for sig := range signals {
		if sig == syscall.SIGTERM {
			return
		}
		line("handled")
	}
}
