// Upgrade is a server that replaces its own program without losing a request: on USR2 the binary that lies on disk by
// then takes over, sockets and all. If it fails, nothing changes.
//
//	go build -o server -ldflags "-X main.version=1" ./examples/upgrade && ./server
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

var version = "none" // set when it is built, by -ldflags "-X main.version=2"

var (
	listen  = flag.String("listen", "127.0.0.1:8080", "address to serve on")
	workers = flag.Int("workers", runtime.NumCPU(), "number of workers")
)

func main() {
	flag.Parse()
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: *workers,
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, // stop; so does Ctrl-C
			syscall.SIGHUP:  {Rolling: true},           // replace the workers, of the same program
			syscall.SIGUSR2: {Upgrade: true},           // replace the program
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := pm.Listen("tcp", *listen) // bound by the first manager, inherited by the ones after it and by the workers
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() { // main runs in every worker too, up to Run
		pid := os.Getpid() // another after each upgrade
		fmt.Printf("version %s serves on http://%s with %d workers; the manager's pid is %d\n", version, ln.Addr(), *workers, pid)
		fmt.Printf("try:  curl http://%s/\n", ln.Addr())
		fmt.Printf("      build again with main.version=2, to the same file, then  kill -USR2 %d\n", pid)
		fmt.Printf("      kill %d   stop\n", pid)
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		return preforkhttp.Serve(w, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(rw, "version %s, worker %d of manager %d\n", version, w.Slot(), w.ManagerPID())
		})})
	}); err != nil {
		log.Fatal(err)
	}
}
