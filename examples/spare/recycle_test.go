//go:build unix

package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/loadgen"
	"github.com/prefork-go/prefork/preforkhttp"
	"github.com/prefork-go/prefork/preforktest"
)

var long = flag.Bool("long", false, "the whole of the test that takes minutes")

// recycle is a server of 8 workers that are replaced all the time: each when it has served 100 requests, or up to a fifth fewer.
func recycle() {
	w := watcher{workers: make(map[int]prefork.WorkerInfo)}
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: 8, Recycle: prefork.Recycle{MaxRequests: 100}, Observe: w.see,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := pm.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() {
		fmt.Println("serving on", ln.Addr())
	}
	err = pm.Run(context.Background(), func(w *prefork.Worker) error {
		return preforkhttp.Serve(w, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(rw, "hello")
			w.Served(1)
		})})
	})
	fmt.Printf("end: %d recycled, at most %d were draining at a time, %v\n", w.recycled, w.mostDraining, err)
}

// watcher says by the manager's events whether workers are replaced as promised.
type watcher struct {
	workers                          map[int]prefork.WorkerInfo // by ordinal
	recycled, draining, mostDraining int
	stopped                          bool
}

func (w *watcher) see(ev prefork.Event) {
	switch ev := ev.(type) {
	case prefork.SignalEvent:
		w.stopped = true
	case prefork.StateEvent:
		w.workers[ev.Worker.Ordinal] = ev.Worker
		if !w.stopped {
			w.check(ev)
		}
	case prefork.ExitEvent:
		delete(w.workers, ev.Exit.Ordinal)
		if w.stopped {
			return
		}
		if ev.Exit.Reason != prefork.ReasonRecycled || ev.Exit.Status != (prefork.ExitStatus{}) {
			fmt.Println("wrong: ", ev)
			return
		}
		w.draining--
		if w.recycled++; w.recycled%20 == 0 {
			fmt.Println("recycled", w.recycled)
		}
	}
}

// check looks at how many workers there are after an event: beside the eight there is at most one, the replacement of one that retires,
// and who is told to stop has a replacement that is ready.
func (w *watcher) check(ev prefork.StateEvent) {
	serving, inSlot, replaced := 0, 0, false
	for _, o := range w.workers {
		if o.State == prefork.StateStarting || o.State == prefork.StateReady {
			serving++
			if o.Slot == ev.Worker.Slot {
				inSlot++
				replaced = replaced || o.State == prefork.StateReady && o.Ordinal > ev.Worker.Ordinal
			}
		}
	}
	switch {
	case serving > 9, inSlot > 2:
		fmt.Printf("wrong: %d serve, %d in one slot, after %v\n", serving, inSlot, ev)
	case ev.Worker.State == prefork.StateStopping:
		if !replaced {
			fmt.Println("wrong: without a replacement that is ready,", ev)
		}
		w.draining++
		w.mostDraining = max(w.mostDraining, w.draining)
	case ev.Worker.State == prefork.StateKilled:
		fmt.Println("wrong:", ev)
	}
}

// Under load workers are recycled thousands of times with -long, and no request is lost; at any time at most one is being
// replaced, since MaxSurge is 1.
//
//	go test ./examples/spare -run Recycling -long -v
func TestRecyclingLosesNothing(t *testing.T) {
	recyclings := 200
	if *long {
		recyclings = 4000
	}
	p := preforktest.Start(t, "recycle")
	address := p.Expect(`^serving on (\S+)$`)[1]
	began := time.Now()
	clients := loadgen.Start(loadgen.Config{Network: "tcp", Address: address, KeepAlive: 12, Fresh: 4, MaxTime: 8 * time.Minute})
	for n := 20; n <= recyclings; n += 20 {
		p.Expect(fmt.Sprintf(`^recycled %d$`, n))
	}
	res := clients.Stop()
	took := time.Since(began)
	stop(t, p)
	for _, line := range p.Lines() {
		if strings.HasPrefix(line, "wrong") {
			t.Error(line)
		}
	}
	end := regexp.MustCompile(`(?m)^end: .*$`).FindString(strings.Join(p.Lines(), "\n"))
	t.Logf("%s; in %v: %v", end, took.Round(time.Millisecond), res)
	if res.Failed > 0 || res.IdleClosed > 0 {
		t.Errorf("failed %d, closed while idle %d; want none: %v", res.Failed, res.IdleClosed, res.Errors)
	}
}
