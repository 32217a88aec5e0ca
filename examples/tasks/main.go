// Tasks is a pool of tasks, Perl's Proc::tored::Pool: so many run at a time, each in a process of its own, and what came
// of it is collected: a result, or why there is none. The processes are workers of a Manager, each for one task; the next is
// started before there is a task for it.
//
//	go run ./examples/tasks                 # squares, one of which fails and one of which is killed
//	touch tasks.paused; rm tasks.paused     # meanwhile, in another terminal
//	touch tasks.stopped                     # ends it when the tasks under way are done
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
	dir      = flag.String("dir", ".", "directory of the service's files")
	capacity = flag.Int("capacity", 2, "tasks at a time")
	count    = flag.Int("n", 10, "number of tasks")
	pace     = flag.Duration("pace", 300*time.Millisecond, "how long a task takes")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

// square is the task. It is run in a process of its own.
func square(arg json.RawMessage) (any, error) {
	var n int
	if err := json.Unmarshal(arg, &n); err != nil {
		return nil, err
	}
	time.Sleep(*pace)
	switch n {
	case 3:
		return nil, errors.New("three is not to be squared")
	case 5:
		p, _ := os.FindProcess(os.Getpid())
		p.Kill() // as the kernel does where memory is short
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
		failure: func(id string, why error) { fmt.Printf("failure %s: %v\n", id, why) },
	}
	if err := p.manager(prefork.Config{MaxWorkers: *capacity, Logger: slog.New(slog.DiscardHandler)}); err != nil {
		return err
	}
	detach, err := svc.Attach(p.pm) // all verbs of the service work on the pool
	if err != nil {
		return err
	}
	defer detach()

	ctx, end := context.WithCancel(context.Background())
	defer end()
	return p.run(ctx, func() {
		defer end()
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
