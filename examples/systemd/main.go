// Systemd is an HTTP server that systemd starts on a socket which it has bound: prefork.socket and prefork.service beside
// this file are its units.
//
//	go build -o /usr/local/bin/prefork-example ./examples/systemd
//	cp examples/systemd/prefork.{socket,service} /etc/systemd/system/
//	systemctl daemon-reload
//	systemctl enable --now prefork.socket    # curl http://localhost:8080/ starts the service
//	systemctl reload prefork                 # HUP: new workers
//	systemctl restart prefork                # a new manager, on the same socket: also a new version
//
// Without systemd units:
//
//	go build -o server ./examples/systemd
//	systemd-socket-activate -l 8080 ./server
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforkhttp"
)

var (
	listen  = flag.String("listen", ":8080", "address to serve on; under systemd it chooses among its sockets")
	workers = flag.Int("workers", 2, "number of workers")
)

func main() {
	flag.Parse()
	pm, err := prefork.New(prefork.Config{
		MaxWorkers:  *workers,
		StopTimeout: 30 * time.Second, // below TimeoutStopSec of the unit
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, // systemctl stop
			syscall.SIGHUP:  {Signal: syscall.SIGTERM}, // systemctl reload: replace the workers
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := pm.Listen("tcp", *listen) // binds nothing where sockets were given
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() { // main runs in every worker too, up to Run
		fmt.Printf("serving on %s; the manager's pid is %d\n", ln.Addr(), os.Getpid())
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		return preforkhttp.Serve(w, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(rw, "worker %d of generation %d\n", w.Slot(), w.Generation())
		})})
	}); err != nil {
		log.Fatal(err)
	}
}
