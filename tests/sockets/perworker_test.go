//go:build linux

package sockets_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
)

func init() { programs["perworker"], programs["perworkerpools"] = perWorker, perWorkerPools }

// perWorker is a program that answers each connection with the slot and the
// generation that serves it. Its arguments are key=value:
//
//	listen    "own" for ListenPerWorker, "shared" for Listen
//	on        network and address, separated by commas for several listeners;
//	          "tcp 127.0.0.1:0"
//	dir       the directory of the files "workers" (the MaxWorkers of this
//	          manager), "gate" (workers accept when they can lock it) and
//	          "crash" (a slot, and when its worker exits: "before" it is
//	          ready or "after")
//	refuse    workers up to this generation never accept
//	warm      only the worker of this slot waits for the gate, and does not
//	          touch its listeners before
//	respawn   ErrRespawnInterval
//	hold      Start waits for a line "go"
//	grow      the MaxWorkers that the manager sets after starting a successor
//
// The manager reads lines "max N" from standard input. A worker executes
// another program on SIGUSR2, closes its listeners on SIGWINCH, and gets no more
// file descriptors from SIGTTIN on.
func perWorker() { perWorkerThat(nil) }

// perWorkerThat is perWorker with more commands.
func perWorkerThat(orders map[string]func(string)) {
	args := map[string]string{"listen": "own", "on": "tcp 127.0.0.1:0"}
	for _, arg := range os.Args[1:] {
		key, value, _ := strings.Cut(arg, "=")
		args[key] = value
	}
	respawn, _ := time.ParseDuration(args["respawn"])
	workers, _ := strconv.Atoi(contents(args["dir"], "workers"))
	var pm *prefork.Manager
	observe := func(ev prefork.Event) {
		sayEvent(ev)
		if _, ok := ev.(prefork.UpgradeEvent); ok && args["grow"] != "" {
			n, _ := strconv.Atoi(args["grow"])
			pm.SetMaxWorkers(n)
		}
	}
	pm = testprog.NewManager(prefork.Config{
		MaxWorkers: workers, ErrRespawnInterval: respawn, MaxSurge: 2, Readiness: prefork.Readiness{Explicit: true}, Observe: observe,
		TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Signal: term}, usr1: {Rolling: true}, syscall.SIGUSR2: {Upgrade: true}},
	})
	var lns []net.Listener
	for _, on := range strings.Split(args["on"], ",") {
		network, address, _ := strings.Cut(on, " ")
		listen := pm.ListenPerWorker
		if args["listen"] == "shared" {
			listen = pm.Listen
		}
		ln, err := listen(network, address)
		if err != nil {
			log.Fatal(err)
		}
		lns = append(lns, ln)
	}
	if !prefork.IsWorker() {
		for _, s := range pm.Snapshot().Sockets {
			testprog.Print("on %s %s per worker %t", s.Network, s.Address, s.PerWorker)
		}
		start := make(chan struct{})
		go obey(pm, start, orders)
		if _, ok := args["hold"]; ok {
			<-start
		}
	}
	refusing, _ := strconv.Atoi(args["refuse"])
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		ctx := w.Context()
		crash := contents(args["dir"], "crash")
		if crash == fmt.Sprint(w.Slot(), " before") {
			return fmt.Errorf("slot %s", crash)
		}
		become := make(chan os.Signal, 1)
		signal.Notify(become, syscall.SIGUSR2)
		go func() {
			<-become
			log.Fatal(syscall.Exec("/bin/sh", []string{"sh", "-c", "echo another program; exec sleep 1000"}, os.Environ()))
		}()
		leave := make(chan os.Signal, 1)
		signal.Notify(leave, syscall.SIGWINCH)
		go func() {
			<-leave
			for _, ln := range lns {
				ln.Close()
			}
			testprog.Print("closed")
		}()
		starve := make(chan os.Signal, 1)
		signal.Notify(starve, syscall.SIGTTIN)
		go func() {
			<-starve
			if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{}); err != nil {
				log.Fatal(err)
			}
			testprog.Print("starved %d", w.Slot())
		}()
		w.Ready()
		if crash == fmt.Sprint(w.Slot(), " after") {
			return fmt.Errorf("slot %s", crash)
		}
		if w.Generation() <= refusing {
			<-ctx.Done()
			return nil
		}
		waits := args["warm"] == "" || args["warm"] == fmt.Sprint(w.Slot())
		if args["warm"] == "" {
			for _, ln := range lns {
				ln.(syscall.Conn).SyscallConn() // as Accept: the manager gives it connections
			}
		}
		served := make(chan struct{})
		go func() {
			defer close(served)
			if !waits || awaitGate(args["dir"]) {
				serveSlots(ctx, w, lns)
			}
		}()
		<-ctx.Done()
		if waits && gated(args["dir"]) {
			return nil // it has accepted no connection
		}
		<-served
		return nil
	})
}

// obey runs the commands that the test writes to standard input.
func obey(pm *prefork.Manager, start chan struct{}, orders map[string]func(string)) {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		switch n, _ := strconv.Atoi(rest); word {
		case "max":
			pm.SetMaxWorkers(n)
		case "go":
			close(start)
		default:
			orders[word](rest)
		}
	}
}

func sayEvent(ev prefork.Event) {
	switch ev := ev.(type) {
	case prefork.StateEvent:
		if ev.Worker.State == prefork.StateReady {
			testprog.Print("ready %d gen %d pid %d", ev.Worker.Slot, ev.Worker.Generation, ev.Worker.PID)
		}
	case prefork.ExitEvent:
		testprog.Print("gone %d gen %d", ev.Exit.Slot, ev.Exit.Generation)
	case prefork.DelayEvent:
		testprog.Print("delay %d", ev.Slot)
	case prefork.RolledEvent:
		testprog.Print("rolled %d", ev.Generation)
	case prefork.UpgradedEvent:
		testprog.Print("successor %d", ev.PID)
	case prefork.UpgradeFailedEvent:
		testprog.Print("no successor: %v", ev.Err)
	}
}

// contents returns the contents of a file, or "" if there is none.
func contents(dir, name string) string {
	data, _ := os.ReadFile(filepath.Join(dir, name))
	return strings.TrimSpace(string(data))
}

// awaitGate waits until the test opens the gate.
func awaitGate(dir string) bool {
	f, err := os.Open(filepath.Join(dir, "gate"))
	if err != nil {
		return false
	}
	defer f.Close()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_SH) == nil
}

func gated(dir string) bool {
	f, err := os.Open(filepath.Join(dir, "gate"))
	if err != nil {
		return true
	}
	defer f.Close()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil
}

// serveSlots answers connections until ctx ends, and then the accepted ones.
func serveSlots(ctx context.Context, w *prefork.Worker, lns []net.Listener) {
	var wg sync.WaitGroup
	for i, ln := range lns {
		context.AfterFunc(ctx, func() { ln.Close() })
		wg.Go(func() {
			for {
				conn, err := ln.Accept()
				if errors.Is(err, syscall.EMFILE) {
					time.Sleep(5 * time.Millisecond) // as net/http
					continue
				}
				if err != nil {
					return
				}
				wg.Go(func() {
					defer conn.Close()
					if _, err := io.ReadFull(conn, make([]byte, 1)); err == nil {
						fmt.Fprintln(conn, w.Slot(), w.Generation(), i, w.ManagerPID())
					}
				})
			}
		})
	}
	wg.Wait()
}
