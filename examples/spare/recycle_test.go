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

var long = flag.Bool("long", false, "run the recycling test for minutes")

func init() { preforktest.Register("recycle", recycle) }

// recycle is a server of 8 workers. Each is replaced after 100 requests, or up
// to 20 % less, without the pace of recycling.
func recycle() {
	c := checker{workers: make(map[int]prefork.WorkerInfo)}
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: 8, Recycle: prefork.Recycle{MaxRequests: 100}, ErrRespawnInterval: -1, Observe: c.observe,
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
		handler := func(rw http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(rw, "hello")
			w.Served(1)
		}
		return preforkhttp.Serve(w, ln, &http.Server{Handler: http.HandlerFunc(handler)})
	})
	fmt.Printf("summary: %d recycled, at most %d draining at a time, %v\n", c.recycled, c.maxDraining, err)
}

// A checker checks the replacement of workers by the events of the manager.
type checker struct {
	workers                         map[int]prefork.WorkerInfo // by ordinal
	recycled, draining, maxDraining int
	stopped                         bool
}

func (c *checker) observe(ev prefork.Event) {
	switch ev := ev.(type) {
	case prefork.SignalEvent:
		c.stopped = true
	case prefork.StateEvent:
		c.workers[ev.Worker.Ordinal] = ev.Worker
		if !c.stopped {
			c.checkState(ev)
		}
	case prefork.ExitEvent:
		delete(c.workers, ev.Exit.Ordinal)
		if !c.stopped {
			c.checkExit(ev)
		}
	}
}

func (c *checker) checkExit(ev prefork.ExitEvent) {
	if ev.Exit.Reason != prefork.ReasonRecycled || ev.Exit.Status != (prefork.ExitStatus{}) {
		fmt.Println("wrong: ", ev)
		return
	}
	c.draining--
	if c.recycled++; c.recycled%20 == 0 {
		fmt.Println("recycled", c.recycled)
	}
}

// checkState checks the workers after an event. Besides the eight there may be
// one replacement, and a stopping worker must have a ready replacement.
func (c *checker) checkState(ev prefork.StateEvent) {
	serving, inSlot, replaced := 0, 0, false
	for _, w := range c.workers {
		if w.State != prefork.StateStarting && w.State != prefork.StateReady {
			continue
		}
		serving++
		if w.Slot == ev.Worker.Slot {
			inSlot++
			replaced = replaced || w.State == prefork.StateReady && w.Ordinal > ev.Worker.Ordinal
		}
	}
	switch {
	case serving > 9, inSlot > 2:
		fmt.Printf("wrong: %d serve, %d in one slot, after %v\n", serving, inSlot, ev)
	case ev.Worker.State == prefork.StateStopping:
		if !replaced {
			fmt.Println("wrong: no ready replacement,", ev)
		}
		c.draining++
		c.maxDraining = max(c.maxDraining, c.draining)
	case ev.Worker.State == prefork.StateKilled:
		fmt.Println("wrong:", ev)
	}
}

// Recycling under load loses no request, and with -long it happens thousands of
// times. At most one worker is being replaced at a time, because MaxSurge is 1.
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
	clients := loadgen.Start(loadgen.Config{
		Network: "tcp", Address: address, KeepAlive: 12, Fresh: 4, MaxTime: 8 * time.Minute,
	})
	for n := 20; n <= recyclings; n += 20 {
		p.Expect(fmt.Sprintf(`^recycled %d$`, n))
	}
	res := clients.Stop()
	elapsed := time.Since(began)
	stop(t, p)
	for _, line := range p.Lines() {
		if strings.HasPrefix(line, "wrong") {
			t.Error(line)
		}
	}
	summary := regexp.MustCompile(`(?m)^summary: .*$`).FindString(strings.Join(p.Lines(), "\n"))
	t.Logf("%s; in %v: %v", summary, elapsed.Round(time.Millisecond), res)
	if res.Failed > 0 || res.IdleClosed > 0 {
		t.Errorf("failed %d, closed while idle %d; want none: %v", res.Failed, res.IdleClosed, res.Errors)
	}
}
