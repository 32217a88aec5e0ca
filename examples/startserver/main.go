// Startserver is an HTTP server that runs by itself, or under start_server, Perl's or Go's. Then it serves on the socket
// that it is given, and HUP to start_server starts it anew beside the old one: also a new version of it.
//
//	go build ./examples/startserver
//	./startserver
//	start_server --port 8080 --signal-on-hup=TERM -- ./startserver
//
// A request that the old one has begun is finished; nobody is refused, as the socket is start_server's.
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
	listen  = flag.String("listen", ":8080", "address to serve on; under start_server it chooses among its sockets")
	workers = flag.Int("workers", 2, "number of workers")
)

func main() {
	flag.Parse()
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: *workers,
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, // stop: so do start_server's TERM and, to the old one, its HUP
			syscall.SIGHUP:  {Signal: syscall.SIGTERM}, // replace the workers, not the manager
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
		fmt.Printf("serving on %s; the manager's pid is %d, its number %s\n", ln.Addr(), os.Getpid(), cmp.Or(os.Getenv("SERVER_STARTER_GENERATION"), "0"))
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		return preforkhttp.Serve(w, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(rw, "worker %d of generation %d of manager %d\n", w.Slot(), w.Generation(), os.Getppid())
		})})
	}); err != nil {
		log.Fatal(err)
	}
}
