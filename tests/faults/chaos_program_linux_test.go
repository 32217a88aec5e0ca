package faults_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
)

func init() {
	programs["chaos"], programs["bystander"] = chaos, bystander
}

// flagFile reports whether a file exists in the directory of a chaos run. Such
// a file requests something from the program.
func flagFile(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

// chaos serves connections and prints events. Its arguments are a directory and
// an address.
func chaos() {
	dir := os.Args[1]
	var pm *prefork.Manager
	broken, err := os.Open(os.DevNull)
	if err != nil {
		panic(err)
	}
	broken.Close()
	pm = testprog.NewManager(prefork.Config{
		MaxWorkers: 4, MaxSurge: 2, Standby: 1, ErrRespawnInterval: -1, Reaper: true,
		StopTimeout: 5 * time.Second, UpgradeTimeout: 20 * time.Second,
		Readiness: prefork.Readiness{Explicit: true, Timeout: 10 * time.Second},
		TrapSignals: prefork.Signals{
			term: {Signal: term}, hup: {Rolling: true}, usr1: {Signal: term}, syscall.SIGUSR2: {Upgrade: true},
			syscall.SIGALRM: {Signal: usr1}, syscall.SIGTTIN: {}, syscall.SIGTTOU: {}, syscall.SIGWINCH: {},
		},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		BeforeSpawn: func(_ *prefork.Manager, s *prefork.Spawn) {
			if flagFile(dir, "cannot spawn") {
				s.Files = []*os.File{broken}
			}
		},
		Observe: func(ev prefork.Event) {
			switch ev := ev.(type) {
			case prefork.ExitEvent:
				testprog.Print("exit %d at %d: %v", ev.Exit.PID, time.Now().UnixNano(), ev.Exit.Reason)
			case prefork.SpawnFailedEvent:
				testprog.Print("spawn failed: %v", ev.Err)
			case prefork.RolledEvent:
				testprog.Print("rolled")
			case prefork.RollFailedEvent:
				testprog.Print("roll failed: %v", ev.Err)
			case prefork.UpgradedEvent:
				testprog.Print("upgraded")
			case prefork.UpgradeFailedEvent:
				testprog.Print("upgrade failed: %v", ev.Err)
			case prefork.SignalEvent:
				switch ev.Received {
				case syscall.SIGTTIN:
					pm.SetMaxWorkers(min(8, pm.MaxWorkers()+1))
				case syscall.SIGTTOU:
					pm.SetMaxWorkers(max(1, pm.MaxWorkers()-1))
				case syscall.SIGWINCH:
					saySnapshot(pm.Snapshot())
				}
			}
		},
	})
	ln, err := pm.Listen("tcp", os.Args[2])
	if err != nil {
		testprog.Print("%v", err)
		os.Exit(1)
	}
	if prefork.IsWorker() {
		signal.Notify(make(chan os.Signal, 1), usr1)
	} else {
		testprog.Print("manager %d", os.Getpid())
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error { return serveChaos(w, ln, dir) }); err != nil {
		testprog.Print("Run: %v", err)
		os.Exit(1)
	}
}

func saySnapshot(s prefork.Snapshot) {
	var b strings.Builder
	for _, w := range s.Workers {
		fmt.Fprintf(&b, " %d=%v", w.PID, w.State)
	}
	testprog.Print("snapshot of %d, max %d:%s", s.PID, s.MaxWorkers, b.String())
}

// serveChaos answers each connection in two lines, and drains when its context
// ends.
func serveChaos(w *prefork.Worker, ln net.Listener, dir string) error {
	ctx := w.Context()
	switch {
	case flagFile(dir, "broken"):
		return errors.New("broken")
	case flagFile(dir, "slow"):
		time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
	case flagFile(dir, "leaves orphans"):
		exec.Command("sh", "-c", "sleep 0.01 & sleep 0.02 &").Run()
	}
	w.Ready()
	go func() {
		<-ctx.Done()
		ln.Close()
	}()
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, err := ln.Accept()
		if err != nil {
			return nil
		}
		open.Go(func() {
			defer conn.Close()
			fmt.Fprintln(conn, os.Getpid())
			time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
			fmt.Fprintln(conn, "done")
		})
	}
}

// bystander prints every signal that it receives.
func bystander() {
	c := make(chan os.Signal, 100)
	signal.Notify(c)
	testprog.Print("bystander %d", os.Getpid())
	for sig := range c {
		if sig != syscall.SIGURG {
			testprog.Print("bystander got %v", sig)
		}
		if sig == term {
			return
		}
	}
}
