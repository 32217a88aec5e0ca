//go:build unix

package prefork_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
)

// A whole program: four workers, replaced on HUP, stopped on TERM and on
// Ctrl-C.
func Example() {
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: 4,
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM},
			syscall.SIGHUP:  {Signal: syscall.SIGTERM},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() { // code outside this block runs in every worker, too
		fmt.Println("the manager's pid is", os.Getpid())
	}
	err = pm.Run(context.Background(), func(w *prefork.Worker) error {
		ctx := w.Context()
		for {
			fmt.Printf("worker %d works\n", w.Slot())
			select {
			case <-time.After(time.Second):
			case <-ctx.Done(): // the stop signal arrived, or the manager died
				return nil
			}
		}
	})
	if err != nil {
		log.Fatal(err)
	}
}

// Run is the whole life of a program. Reload is called before the first
// generation and on HUP. If it fails on HUP, the workers keep running.
func ExampleManager_Run() {
	pm, err := prefork.New(prefork.Config{
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM},
			syscall.SIGHUP:  {Signal: syscall.SIGTERM},
		},
		Reload: func() ([]byte, error) { return os.ReadFile("app.conf") },
	})
	if err != nil {
		log.Fatal(err)
	}
	err = pm.Run(context.Background(), func(w *prefork.Worker) error {
		ctx := w.Context()
		fmt.Printf("configured by %d bytes\n", len(w.Passed()))
		<-ctx.Done()
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
}

// The program has a main loop of its own. It reacts to a signal after StartFunc
// has returned.
func ExampleManager_StartFunc() {
	pm, err := prefork.New(prefork.Config{TrapSignals: prefork.Signals{
		syscall.SIGTERM: {Signal: syscall.SIGTERM},
		syscall.SIGUSR1: {}, // forwarded to no worker
	}})
	if err != nil {
		log.Fatal(err)
	}
	for pm.SignalReceived() != syscall.SIGTERM {
		pm.StartFunc(func(w *prefork.Worker) error { // does not return in a worker
			<-w.Context().Done()
			return nil
		})
		if pm.SignalReceived() == syscall.SIGUSR1 {
			fmt.Println(pm.Snapshot())
		}
	}
	pm.WaitAllChildren(context.Background())
}

// In the basic form, Start returns true in the manager and false in a worker.
func ExampleManager_Start() {
	pm, err := prefork.New(prefork.Config{MaxWorkers: 2})
	if err != nil {
		log.Fatal(err)
	}
	for pm.SignalReceived() != syscall.SIGTERM {
		if pm.Start() {
			continue // manager: a trapped signal arrived and was forwarded
		}
		<-pm.Worker().Context().Done() // worker, until Finish
		pm.Finish(0)
	}
	pm.WaitAllChildren(context.Background())
}

// The manager reads the configuration once for each generation. If it is bad,
// Pass is not called, and the next generation gets the last good bytes.
func ExampleManager_Pass() {
	pm, err := prefork.New(prefork.Config{TrapSignals: prefork.Signals{
		syscall.SIGTERM: {Signal: syscall.SIGTERM},
		syscall.SIGHUP:  {Signal: syscall.SIGTERM},
	}})
	if err != nil {
		log.Fatal(err)
	}
	for pm.SignalReceived() != syscall.SIGTERM {
		if !prefork.IsWorker() {
			if data, err := os.ReadFile("app.conf"); err != nil {
				log.Print(err)
			} else {
				pm.Pass(data)
			}
		}
		pm.StartFunc(func(w *prefork.Worker) error {
			ctx := w.Context()
			fmt.Printf("configured by %d bytes\n", len(w.Passed()))
			<-ctx.Done()
			return nil
		})
	}
	pm.WaitAllChildren(context.Background())
}

// One call binds the socket in the manager and returns it in each worker.
func ExampleManager_Listen() {
	pm, err := prefork.New(prefork.Config{MaxWorkers: 4})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := pm.Listen("tcp", "127.0.0.1:7000")
	if err != nil {
		log.Fatal(err)
	}
	err = pm.Run(context.Background(), func(w *prefork.Worker) error {
		context.AfterFunc(w.Context(), func() { ln.Close() }) // only this worker's descriptor
		for {
			conn, err := ln.Accept()
			if errors.Is(err, net.ErrClosed) {
				return nil
			} else if err != nil {
				return err
			}
			fmt.Fprintf(conn, "hello from worker %d\n", w.Slot())
			conn.Close()
		}
	})
	if err != nil {
		log.Fatal(err)
	}
}

// Workers that have not exited after ten seconds are listed. The second wait
// lasts until StopTimeout has ended them.
func ExampleManager_WaitAllChildren() {
	pm, err := prefork.New(prefork.Config{StopTimeout: time.Minute})
	if err != nil {
		log.Fatal(err)
	}
	for pm.SignalReceived() != syscall.SIGTERM {
		pm.StartFunc(func(w *prefork.Worker) error {
			<-w.Context().Done()
			return nil
		})
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if left, err := pm.WaitAllChildren(ctx); err != nil {
		log.Printf("%d workers take long to stop: %v", left, pm.Snapshot())
	}
	pm.WaitAllChildren(context.Background())
}

// SIGTTIN and SIGTTOU change the number of workers.
func ExampleManager_SetMaxWorkers() {
	pm, err := prefork.New(prefork.Config{TrapSignals: prefork.Signals{
		syscall.SIGTERM: {Signal: syscall.SIGTERM},
		syscall.SIGTTIN: {},
		syscall.SIGTTOU: {},
	}})
	if err != nil {
		log.Fatal(err)
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
			pm.SetMaxWorkers(max(0, pm.MaxWorkers()-1))
		}
	}
	pm.WaitAllChildren(context.Background())
}

// The program stops when the exit code of a worker reports that no work is
// left.
func ExampleManager_Deliver() {
	const allDone = 3
	pm, err := prefork.New(prefork.Config{OnChildReap: func(m *prefork.Manager, e prefork.Exit) {
		if e.Status.Code == allDone {
			m.Deliver(syscall.SIGTERM)
		}
	}})
	if err != nil {
		log.Fatal(err)
	}
	err = pm.Run(context.Background(), func(*prefork.Worker) error {
		// … the work, and then:
		pm.Finish(allDone)
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
}

// The workers reopen their logs on SIGUSR1. They call signal.Notify before
// Start: the manager holds the signal until a worker has reached Start, and may
// send it right after.
func ExampleManager_SignalAllChildren() {
	pm, err := prefork.New(prefork.Config{})
	if err != nil {
		log.Fatal(err)
	}
	reopen := make(chan os.Signal, 1)
	if prefork.IsWorker() {
		signal.Notify(reopen, syscall.SIGUSR1)
	} else {
		go func() {
			for range time.Tick(time.Hour) {
				pm.SignalAllChildren(syscall.SIGUSR1)
			}
		}()
	}
	err = pm.Run(context.Background(), func(w *prefork.Worker) error {
		ctx := w.Context()
		for {
			select {
			case <-reopen:
				fmt.Println("reopening the log")
			case <-ctx.Done():
				return nil
			}
		}
	})
	if err != nil {
		log.Fatal(err)
	}
}

// The worker is a program in another language.
func ExampleConfig_command() {
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: 3,
		Command:    []string{"perl", "worker.pl", "--queue", "mail"},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := pm.Run(context.Background(), nil); err != nil {
		log.Fatal(err)
	}
}

// The hooks run in the manager, in the goroutine of the blocking call, one at a time.
func ExampleConfig_hooks() {
	crashed := 0
	pm, err := prefork.New(prefork.Config{
		BeforeSpawn: func(_ *prefork.Manager, s *prefork.Spawn) {
			s.Env = append(s.Env, fmt.Sprint("SHARD=", s.Slot))
		},
		AfterSpawn: func(m *prefork.Manager, pid int) { log.Printf("%d is one of %d", pid, m.NumWorkers()) },
		OnChildReap: func(_ *prefork.Manager, e prefork.Exit) {
			if e.Reason == prefork.ReasonCrashed {
				crashed++
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	err = pm.Run(context.Background(), func(w *prefork.Worker) error {
		ctx := w.Context()
		fmt.Println("works on shard", os.Getenv("SHARD"))
		<-ctx.Done()
		return nil
	})
	log.Printf("%v; %d workers crashed", err, crashed)
}

// A worker finishes the work it has begun, and logs the reason why it stops.
func ExampleWorker_Context() {
	pm, err := prefork.New(prefork.Config{})
	if err != nil {
		log.Fatal(err)
	}
	err = pm.Run(context.Background(), func(w *prefork.Worker) error {
		ctx := w.Context() // early: before its first call the stop signal ends the process
		for ctx.Err() == nil {
			time.Sleep(100 * time.Millisecond) // one piece of work
		}
		log.Print(context.Cause(ctx)) // "prefork: stopped by SIGTERM"
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
}

// Code that must run once in a program should run in the manager only, since
// main runs in every worker as well.
func ExampleIsWorker() {
	if !prefork.IsWorker() {
		fmt.Println("writing the pid file")
	}
	// Output: writing the pid file
}

// The three forms of an entry: forwarded to all workers at once, to one after
// another, and not at all.
func ExampleForward() {
	table := prefork.Signals{
		syscall.SIGTERM: {Signal: syscall.SIGTERM},
		syscall.SIGHUP:  {Signal: syscall.SIGTERM, Interval: 2 * time.Second},
		syscall.SIGUSR1: {},
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1} {
		switch f := table[sig]; {
		case f.Signal == nil:
			fmt.Printf("%v: nothing is sent\n", sig)
		case f.Interval > 0:
			fmt.Printf("%v: %v, to one worker each %v\n", sig, f.Signal, f.Interval)
		default:
			fmt.Printf("%v: %v, to all workers\n", sig, f.Signal)
		}
	}
	// Output:
	// terminated: terminated, to all workers
	// hangup: terminated, to one worker each 2s
	// user defined signal 1: nothing is sent
}

// A table with a signal that no program can receive is refused.
func ExampleSignals() {
	_, err := prefork.New(prefork.Config{TrapSignals: prefork.Signals{
		syscall.SIGKILL: {Signal: syscall.SIGTERM},
	}})
	fmt.Println(err)
	// Output:
	// prefork: Config.TrapSignals: SIGKILL cannot be trapped: the kernel does not deliver it
}

// The error of New names the field that it does not accept.
func ExampleConfigError() {
	_, err := prefork.New(prefork.Config{MaxWorkers: -1})
	if bad, ok := errors.AsType[*prefork.ConfigError](err); ok {
		fmt.Println("field:", bad.Field)
	}
	fmt.Println(err)
	// Output:
	// field: MaxWorkers
	// prefork: Config.MaxWorkers: -1 is negative; 0 means 10
}

// An Exit is the argument of OnChildReap.
func ExampleExit() {
	e := prefork.Exit{
		Slot: 2, Generation: 1, Ordinal: 3, PID: 4711,
		Status: prefork.ExitStatus{Signal: syscall.SIGSEGV, CoreDump: true},
		Reason: prefork.ReasonCrashed,
		Uptime: 1500 * time.Millisecond,
	}
	fmt.Println(e)
	fmt.Println(e.Status)
	fmt.Println(prefork.ExitStatus{Code: 3})
	// Output:
	// worker 4711 (slot 2, generation 1) crashed: SIGSEGV (core dumped) after 1.5s
	// SIGSEGV (core dumped)
	// exit code 3
}

// Config.Observe is called for every change of state. This function handles the
// events that it knows.
func ExampleEvent() {
	observe := func(ev prefork.Event) {
		switch ev := ev.(type) {
		case prefork.StateEvent:
			fmt.Printf("slot %d: %v\n", ev.Worker.Slot, ev.Worker.State)
		case prefork.ExitEvent:
			fmt.Printf("slot %d: %v\n", ev.Exit.Slot, ev.Exit.Reason)
		default:
			fmt.Println(ev)
		}
	}
	worker := prefork.WorkerInfo{Slot: 1, Generation: 1, PID: 4711, State: prefork.StateReady}
	observe(prefork.GenerationEvent{Generation: 1, MaxWorkers: 4})
	observe(prefork.StateEvent{Worker: worker, From: prefork.StateStarting})
	observe(prefork.SignalEvent{Received: syscall.SIGHUP, Sent: syscall.SIGTERM, Interval: time.Second})
	observe(prefork.ExitEvent{Exit: prefork.Exit{Slot: 1, Reason: prefork.ReasonStopped}, From: prefork.StateStopping})
	// Output:
	// generation 1 of 4 workers begins
	// slot 1: ready
	// SIGHUP received, SIGTERM sent to one worker each 1s
	// slot 1: stopped
}

// A Snapshot prints one line for the manager and one for each worker.
func ExampleSnapshot() {
	fmt.Println(prefork.Snapshot{
		Name: "web", PID: 4700, Generation: 2, MaxWorkers: 2,
		Workers: []prefork.WorkerInfo{
			{Slot: 0, Generation: 1, Ordinal: 1, PID: 4701, State: prefork.StateStopping},
			{Slot: 1, Generation: 2, Ordinal: 3, PID: 4711, State: prefork.StateReady},
		},
	})
	// Output:
	// manager 4700 of web: generation 2, 2 of 2 workers
	//   worker 4701 (slot 0, generation 1) stopping
	//   worker 4711 (slot 1, generation 2) ready
}
