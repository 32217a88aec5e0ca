// Spare is an HTTP server with as many workers as there is work: one more is started when too few are idle, and one
// is stopped when too many are.
//
//	go run ./examples/spare
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforkhttp"
)

var (
	listen   = flag.String("listen", "127.0.0.1:8080", "address to serve on")
	workers  = flag.Int("workers", 6, "number of workers at the most")
	requests = flag.Int("requests", 1000, "a worker is replaced when it has served so many, or up to a fifth fewer")
)

func main() {
	flag.Parse()
	var pm *prefork.Manager
	pm, err := prefork.New(prefork.Config{
		MinSpareWorkers: 1, // idle ones, so that nobody waits for a worker to start
		MaxSpareWorkers: 2,
		MaxWorkers:      *workers,
		SpawnInterval:   200 * time.Millisecond, // between two that start, and between two that are stopped
		Recycle:         prefork.Recycle{MaxRequests: *requests},
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, // stop; so does Ctrl-C
			syscall.SIGUSR1: {},                        // sent to nobody; list sees it
		},
		Observe: func(ev prefork.Event) { list(pm, ev) },
	})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := pm.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() { // main runs in every worker too, up to Run
		fmt.Printf("serving on http://%s with up to %d workers\n", ln.Addr(), *workers)
		fmt.Printf("try:  for i in $(seq 20); do curl -s http://%s/slow & sleep 0.1; done    the pool grows, and shrinks again\n", ln.Addr())
		fmt.Printf("      kill -USR1 %d   list the workers\n", os.Getpid())
		fmt.Printf("      kill %d         stop; so does Ctrl-C\n", os.Getpid())
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		w.SetStatus(prefork.StatusIdle)
		return preforkhttp.Serve(w, ln, &http.Server{Handler: &load{worker: w, next: handler(w)}})
	}); err != nil {
		log.Fatal(err)
	}
}

// list runs in the manager, with every event.
func list(pm *prefork.Manager, ev prefork.Event) {
	if ev, ok := ev.(prefork.SignalEvent); !ok || ev.Received != syscall.SIGUSR1 {
		return
	}
	now := pm.Snapshot()
	fmt.Printf("%d of %d workers\n", len(now.Workers)-now.Standbys, now.MaxWorkers)
	for _, w := range now.Workers {
		fmt.Printf("  %v, status %c, %d requests\n", w, w.Status, w.Requests)
	}
}

// load tells the manager what this worker does: it is busy while it has at least one request.
type load struct {
	worker *prefork.Worker
	next   http.Handler

	mu   sync.Mutex // an atomic counter is not enough: the status must change in the order in which the number does
	open int
}

func (l *load) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	l.add(1)
	defer l.add(-1)
	l.next.ServeHTTP(rw, r)
	l.worker.Served(1)
}

func (l *load) add(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open += n
	if l.open > 0 {
		l.worker.SetStatus('R')
	} else {
		l.worker.SetStatus(prefork.StatusIdle)
	}
}

func handler(w *prefork.Worker) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(rw, "hello from worker %d, pid %d\n", w.Slot(), os.Getpid())
	})
	mux.HandleFunc("/slow", func(rw http.ResponseWriter, _ *http.Request) {
		time.Sleep(time.Second)
		fmt.Fprintf(rw, "slow, from worker %d\n", w.Slot())
	})
	return mux
}
