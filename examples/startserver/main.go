// Startserver is an HTTP server that runs alone or under start_server, in Perl
// or Go. Under start_server it serves on the socket that start_server has
// bound. SIGHUP to start_server starts a new manager, also of a new version,
// and stops the old one. The old one finishes the requests in flight. No
// connection is refused, because start_server keeps the socket open.
//
// Build the example and run it, alone or under start_server. Then send a
// request, and HUP to start_server, whose pid is PID here.
//
//	go build ./examples/startserver
//	./startserver
//	start_server --port 8080 --signal-on-hup=TERM -- ./startserver
//	curl http://127.0.0.1:8080/
//	kill -HUP PID
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"syscall"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforkhttp"
)

var (
	listen  = flag.String("listen", ":8080", "address to serve on, or of the socket of start_server")
	workers = flag.Int("workers", 2, "number of workers")
)

func main() {
	flag.Parse()
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: *workers,
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, // stop; start_server sends it on HUP too
			syscall.SIGHUP:  {Signal: syscall.SIGTERM}, // replace the workers, not the manager
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := pm.Listen("tcp", *listen) // under start_server it binds nothing
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() { // main runs in every worker too, up to Run
		number := cmp.Or(os.Getenv("SERVER_STARTER_GENERATION"), "0")
		fmt.Printf("serving on %s; the manager's pid is %d, its number %s\n", ln.Addr(), os.Getpid(), number)
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		return preforkhttp.Serve(w, ln, &http.Server{Handler: handler(w)})
	}); err != nil {
		log.Fatal(err)
	}
}

func handler(w *prefork.Worker) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(rw, "worker %d of generation %d of manager %d\n", w.Slot(), w.Generation(), os.Getppid())
	})
}
