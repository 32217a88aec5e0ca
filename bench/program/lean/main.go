//go:build linux

// Lean is the program on which package bench measures the library: it links
// the library and nothing else. Its first argument selects a mode.
//
//	pool   a Manager with its workers
//	hand   a loop without the library that starts, reaps and signals processes
//	child  a process of that loop
//
// Each event is a line on standard output: "main" at the first line of main,
// "ready", "handled".
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
		log.Fatal("lean: no mode given: this program is started by go run ./bench")
	}
	flags := flag.NewFlagSet("lean", flag.ExitOnError)
	n := flags.Int("n", 1, "number of processes")
	spare := flags.Int("spare", 0, "MinSpareWorkers")
	standby := flags.Int("standby", 0, "Standby")
	surge := flags.Int("surge", 0, "MaxSurge")
	status := flags.Int("status", 0, "number of calls of SetStatus in the worker for each line that it reads")
	stuck := flags.Duration("stuck", 0, "Stuck.Timeout")
	unpaced := flags.Bool("unpaced", false, "ErrRespawnInterval -1")
	wired := flags.Bool("wired", false, "by hand: give each process a socket to detect the death of its parent, as workers have")
	parked := flags.Bool("parked", false, "by hand: keep a process that waits to be woken; in a child: wait")
	again := flags.Bool("again", false, "by hand: start another process when one exits")
	program := flags.String("program", "", "by hand: the program of the processes, in place of this one")
	if os.Args[1] == "child" || prefork.IsWorker() {
		line("main %d", os.Getpid())
	}
	flags.Parse(os.Args[2:])
	switch mode := os.Args[1]; mode {
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
		byHand(*n, *program, *again, *wired)
	case "child":
		if *parked {
			syscall.Read(0, make([]byte, 1))
		}
		child(*wired)
	default:
		log.Fatalf("lean: unknown mode %q: want pool, hand or child", mode)
	}
}

// line writes a line in one write, so that lines of many processes do not mix.
func line(format string, args ...any) { fmt.Fprintf(os.Stdout, format+"\n", args...) }

// child is a process of the mode hand. It handles the same signals as the
// workers of a pool.
func child(wired bool) {
	if wired {
		go func() {
			os.NewFile(3, "socket").Read(make([]byte, 1)) // non-blocking, so this uses no thread
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
