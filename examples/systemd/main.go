// Systemd is an HTTP server that systemd starts on a socket which systemd has
// bound. The units prefork.socket and prefork.service are beside this file.
//
// Install and start the units. The first request starts the service.
//
//	go build -o /usr/local/bin/prefork-example ./examples/systemd
//	cp examples/systemd/prefork.{socket,service} /etc/systemd/system/
//	systemctl daemon-reload
//	systemctl enable --now prefork.socket
//	curl http://localhost:8080/
//	systemctl reload prefork     # HUP: new workers
//	systemctl restart prefork    # a new manager, also of a new version
//
// It runs without the units too:
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
	listen  = flag.String("listen", ":8080", "address to serve on, or of the socket of systemd")
	workers = flag.Int("workers", 2, "number of workers")
)

func main() {
	flag.Parse()
	pm, err := prefork.New(prefork.Config{
		MaxWorkers:  *workers,
		StopTimeout: 30 * time.Second, // less than TimeoutStopSec of the unit
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, // systemctl stop
			syscall.SIGHUP:  {Signal: syscall.SIGTERM}, // systemctl reload: replace the workers
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := pm.Listen("tcp", *listen) // under systemd it binds nothing
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() { // main runs in every worker too, up to Run
		fmt.Printf("serving on %s; the manager's pid is %d\n", ln.Addr(), os.Getpid())
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		return preforkhttp.Serve(w, ln, &http.Server{Handler: handler(w)})
	}); err != nil {
		log.Fatal(err)
	}
}

func handler(w *prefork.Worker) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(rw, "worker %d of generation %d\n", w.Slot(), w.Generation())
	})
}
