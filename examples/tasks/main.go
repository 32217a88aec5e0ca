// Tasks is a pool of tasks like Perl's Proc::tored::Pool. It runs a limited
// number of tasks at a time, each in its own process, and collects a result or
// an error from each. The processes are workers of a Manager, one for each
// task. The manager starts a worker before there is a task for it.
//
// Run it in one terminal: it squares numbers, and some tasks fail. Pause,
// resume and stop it by files, from another terminal. It finishes the tasks
// that have begun before it stops.
//
//	go run ./examples/tasks -n 100
//	touch tasks.paused
//	rm tasks.paused
//	touch tasks.stopped
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"os"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/service"
)

var (
	dir      = flag.String("dir", ".", "directory of the service's files, such as tasks.paused")
	capacity = flag.Int("capacity", 2, "maximum number of tasks at a time")
	count    = flag.Int("n", 10, "number of tasks")
	pace     = flag.Duration("pace", 300*time.Millisecond, "how long a task takes")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

// square is the task. It runs in its own process.
func square(arg json.RawMessage) (any, error) {
	var n int
	if err := json.Unmarshal(arg, &n); err != nil {
		return nil, err
	}
	time.Sleep(*pace)
	switch n {
	case 3:
		return nil, errors.New("cannot square three")
	case 5:
		p, _ := os.FindProcess(os.Getpid())
		p.Kill() // as the OOM killer does
	case 7:
		os.Exit(3)
	}
	return n * n, nil
}

func run() error {
	svc, err := service.New("tasks", *dir)
	if err != nil {
		return err
	}
	p := &pool{
		task:    square,
		assign:  func(id string) { fmt.Println("assigned", id) },
		success: func(id string, result json.RawMessage) { fmt.Printf("success %s: %s\n", id, result) },
		failure: func(id string, err error) { fmt.Printf("failure %s: %v\n", id, err) },
	}
	logger := slog.New(slog.DiscardHandler)
	if err := p.newManager(prefork.Config{MaxWorkers: *capacity, Logger: logger}); err != nil {
		return err
	}
	detach, err := svc.Attach(p.pm) // the service's files and commands control the pool
	if err != nil {
		return err
	}
	defer detach()

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	return p.run(ctx, func() {
		defer cancel()
		for n := range *count {
			if !p.process(fmt.Sprint("task-", n), n) {
				fmt.Printf("stopped before task-%d\n", n)
				return
			}
		}
		p.sync()
		fmt.Println("all done,", p.pending(), "pending")
	})
}
