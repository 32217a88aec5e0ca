// Upgrade is a server that replaces its own program without losing a request.
// SIGUSR2 starts the program file on disk as a new manager, which takes over
// the sockets. If the new manager fails, nothing changes.
//
// Build and run version 1, and send a request. Then build version 2 to the same
// file and upgrade. PID is the manager's pid, and the new manager prints
// another one.
//
//	go build -o server -ldflags "-X main.version=1" ./examples/upgrade && ./server
//	curl http://127.0.0.1:8080/
//	go build -o server -ldflags "-X main.version=2" ./examples/upgrade
//	kill -USR2 PID
//	curl http://127.0.0.1:8080/
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"runtime"
	"syscall"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforkhttp"
)

var version = "none" // set by -ldflags "-X main.version=2" of go build

var (
	listen  = flag.String("listen", "127.0.0.1:8080", "address to serve on")
	workers = flag.Int("workers", runtime.NumCPU(), "number of workers")
)

func main() {
	flag.Parse()
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: *workers,
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, // stop, as Ctrl-C does
			syscall.SIGHUP:  {Rolling: true},           // replace the workers
			syscall.SIGUSR2: {Upgrade: true},           // replace the program
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	// Bound by the first manager, inherited by its successors and by the
	// workers.
	ln, err := pm.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() { // main runs in every worker too, up to Run
		help(ln.Addr().String())
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		return preforkhttp.Serve(w, ln, &http.Server{Handler: handler(w)})
	}); err != nil {
		log.Fatal(err)
	}
}

func help(address string) {
	pid := os.Getpid() // another one after each upgrade
	fmt.Printf("version %s serves on http://%s with %d workers; the manager's pid is %d\n",
		version, address, *workers, pid)
	fmt.Printf("try:  curl http://%s/\n", address)
	fmt.Printf("      build main.version=2 to the same file, then  kill -USR2 %d\n", pid)
	fmt.Printf("      kill %d   stop\n", pid)
}

func handler(w *prefork.Worker) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(rw, "version %s, worker %d of manager %d\n", version, w.Slot(), w.ManagerPID())
	})
}
