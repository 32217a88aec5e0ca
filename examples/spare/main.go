// Spare is an HTTP server whose number of workers follows the load. The manager
// spawns a worker when too few are idle, and stops one when too many are.
//
// Run it, send slow requests in parallel, and list the workers. PID is the
// manager's pid, which the program prints with these commands.
//
//	go run ./examples/spare
//	for i in $(seq 20); do curl -s http://127.0.0.1:8080/slow & sleep 0.1; done
//	kill -USR1 PID
//	kill PID
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
	workers  = flag.Int("workers", 6, "maximum number of workers")
	requests = flag.Int("requests", 1000, "requests after which a worker is replaced, or up to 20 % less")
)

func main() {
	flag.Parse()
	var pm *prefork.Manager
	pm, err := prefork.New(prefork.Config{
		MinSpareWorkers: 1, // idle workers, so that no client waits for a spawn
		MaxSpareWorkers: 2,
		MaxWorkers:      *workers,
		SpawnInterval:   200 * time.Millisecond, // between two spawns, and between two stops
		Recycle:         prefork.Recycle{MaxRequests: *requests},
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, // stop, as Ctrl-C does
			syscall.SIGUSR1: {},                        // not forwarded; printWorkers handles it
		},
		Observe: func(ev prefork.Event) { printWorkers(pm, ev) },
	})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := pm.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() { // main runs in every worker too, up to Run
		help(ln.Addr().String())
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		w.SetStatus(prefork.StatusIdle)
		return preforkhttp.Serve(w, ln, &http.Server{Handler: &reporter{worker: w, next: handler(w)}})
	}); err != nil {
		log.Fatal(err)
	}
}

func help(address string) {
	fmt.Printf("serving on http://%s with up to %d workers\n", address, *workers)
	fmt.Printf("try:  for i in $(seq 20); do curl -s http://%s/slow & sleep 0.1; done\n", address)
	fmt.Printf("                      the pool grows, and then shrinks\n")
	fmt.Printf("      kill -USR1 %d   list the workers\n", os.Getpid())
	fmt.Printf("      kill %d         stop, as Ctrl-C does\n", os.Getpid())
}

// printWorkers is called in the manager for every event.
func printWorkers(pm *prefork.Manager, ev prefork.Event) {
	if ev, ok := ev.(prefork.SignalEvent); !ok || ev.Received != syscall.SIGUSR1 {
		return
	}
	snapshot := pm.Snapshot()
	fmt.Printf("%d of %d workers\n", len(snapshot.Workers)-snapshot.Standbys, snapshot.MaxWorkers)
	for _, w := range snapshot.Workers {
		fmt.Printf("  %v, status %c, %d requests\n", w, w.Status, w.Requests)
	}
}

// A reporter reports the status of this worker to the manager: the worker is
// busy while at least one request is in flight.
type reporter struct {
	worker *prefork.Worker
	next   http.Handler

	// An atomic counter is not enough: statuses must be set in the order in
	// which the number changes.
	mu       sync.Mutex
	inFlight int
}

func (rep *reporter) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	rep.add(1)
	defer rep.add(-1)
	rep.next.ServeHTTP(rw, r)
	rep.worker.Served(1)
}

func (rep *reporter) add(n int) {
	rep.mu.Lock()
	defer rep.mu.Unlock()
	rep.inFlight += n
	if rep.inFlight > 0 {
		rep.worker.SetStatus('R')
	} else {
		rep.worker.SetStatus(prefork.StatusIdle)
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
