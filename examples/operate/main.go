// Operate is a prefork HTTP server that can be operated: one line, ops.Attach,
// opens a control socket and notifies systemd.
//
// Run it, and look at it and steer it from another terminal. The first line of the
// log names the socket; as an ordinary user it is in $XDG_RUNTIME_DIR/prefork, or
// an abstract one.
//
//	go run ./examples/operate
//	prefork status
//	prefork top
//	prefork reload
//	curl --unix-socket $XDG_RUNTIME_DIR/prefork/operate.prefork.sock http://x/v1/status
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"syscall"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops"
	"github.com/prefork-go/prefork/preforkhttp"
)

var listen = flag.String("listen", "127.0.0.1:8080", "address to serve on")

func main() {
	flag.Parse()
	pm, err := prefork.New(prefork.Config{
		Name:       "operate",
		MaxWorkers: 4,
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM},
			syscall.SIGHUP:  {Signal: syscall.SIGTERM, Rolling: true},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer ops.Attach(pm)() // the one line
	ln, err := pm.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() {
		fmt.Printf("serving on http://%s; try  prefork status\n", ln.Addr())
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		return preforkhttp.Serve(w, ln, &http.Server{Handler: hello(w)})
	}); err != nil {
		log.Print(err)
	}
}

func hello(w *prefork.Worker) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(rw, "hello from process %d\n", os.Getpid())
		w.Served(1) // status and top show it; they do not count by themselves
	})
}
