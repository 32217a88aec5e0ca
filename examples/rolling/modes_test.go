//go:build unix

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/examples/fasthttp/drain"
	"github.com/prefork-go/prefork/preforkhttp"
	"github.com/valyala/fasthttp"
)

// A mode is a way to serve.
type mode struct {
	network   string
	perWorker bool
	server    string
}

const (
	nethttp = "net-http"
	fast    = "fasthttp"
)

// modes are all modes. Unix sockets have no SO_REUSEPORT, so ListenPerWorker
// shares one socket among the workers.
var modes = []mode{
	{"tcp", false, nethttp},
	{"tcp", false, fast},
	{"tcp", true, nethttp},
	{"tcp", true, fast},
	{"unix", false, nethttp},
	{"unix", false, fast},
	{"unix", true, nethttp},
	{"unix", true, fast},
}

func (m mode) String() string {
	sockets := "shared"
	if m.perWorker {
		sockets = "per-worker"
	}
	return m.network + "/" + sockets + "/" + m.server
}

// listen is called in the manager and in each worker.
func (m mode) listen(pm *prefork.Manager, dir string) (net.Listener, error) {
	address := "127.0.0.1:0"
	if m.network == "unix" {
		address = filepath.Join(dir, strings.ReplaceAll(m.String(), "/", "-"))
	}
	if m.perWorker {
		return pm.ListenPerWorker(m.network, address)
	}
	return pm.Listen(m.network, address)
}

// body returns the body of every response in this mode.
func (m mode) body() string { return "hello by " + m.String() }

// serve serves until the worker must stop, and drains.
func (m mode) serve(w *prefork.Worker, ln net.Listener) error {
	if m.server == fast {
		handler := func(ctx *fasthttp.RequestCtx) { io.WriteString(ctx, m.body()) }
		return drain.Serve(w.Context(), ln, &fasthttp.Server{Handler: handler})
	}
	handler := func(rw http.ResponseWriter, _ *http.Request) { io.WriteString(rw, m.body()) }
	return preforkhttp.Serve(w, ln, &http.Server{Handler: http.HandlerFunc(handler)})
}

// serveModes is the program under load. Each of its workers serves in several
// modes. HUP replaces the workers one after another, USR1 replaces all at once,
// and USR2 replaces the manager.
func serveModes() {
	dir := flag.String("dir", "", "directory of the unix sockets")
	number := flag.Int("number", 2, "number of workers")
	names := flag.String("modes", "", "modes, separated by commas")
	warmUp := flag.Duration("warm-up", 10*time.Millisecond, "warm-up time of each worker")
	flag.Parse()
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: *number,
		Readiness:  prefork.Readiness{Explicit: true},
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM},
			syscall.SIGHUP:  {Rolling: true},
			syscall.SIGUSR1: {Signal: syscall.SIGTERM},
			syscall.SIGUSR2: {Upgrade: true},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	listeners := make(map[mode]net.Listener)
	for _, m := range modes {
		if !slices.Contains(strings.Split(*names, ","), m.String()) {
			continue
		}
		if listeners[m], err = m.listen(pm, *dir); err != nil {
			log.Fatal(err)
		}
		if !prefork.IsWorker() {
			fmt.Printf("%v on %v\n", m, listeners[m].Addr())
		}
	}
	if !prefork.IsWorker() {
		fmt.Println("manager", os.Getpid())
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		time.Sleep(*warmUp)
		w.Ready()
		return serveAll(w, listeners)
	}); err != nil {
		log.Fatal(err)
	}
	// The manager does not use the listeners any more, and the garbage
	// collector would close them.
	runtime.KeepAlive(listeners)
}

// serveAll serves on all listeners at once.
func serveAll(w *prefork.Worker, listeners map[mode]net.Listener) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var all error
	for m, ln := range listeners {
		wg.Go(func() {
			if err := m.serve(w, ln); err != nil {
				mu.Lock()
				defer mu.Unlock()
				all = errors.Join(all, fmt.Errorf("%v: %w", m, err))
			}
		})
	}
	wg.Wait()
	return all
}
