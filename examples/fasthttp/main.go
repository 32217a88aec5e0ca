// Fasthttp is a prefork server that uses fasthttp instead of net/http. SIGHUP
// replaces its workers without losing a request, because they stop with
// package drain.
//
// Run it, send a request, replace the workers while a slow request is in
// flight, and stop it. PID is the manager's pid, which the first line shows.
//
//	go run ./examples/fasthttp
//	curl http://127.0.0.1:8080/
//	curl http://127.0.0.1:8080/slow
//	kill -HUP PID
//	kill PID
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/examples/fasthttp/drain"
	"github.com/valyala/fasthttp"
)

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
			syscall.SIGHUP:  {Signal: syscall.SIGTERM}, // reload: workers exit and are replaced
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := pm.Listen("tcp", *listen) // bound by the manager, inherited by each worker
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() { // main runs in every worker too, up to Run
		fmt.Printf("serving on http://%s with %d workers; the manager's pid is %d\n",
			ln.Addr(), *workers, os.Getpid())
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		// drain.Serve calls fasthttp's Shutdown last, which alone would lose
		// requests.
		return drain.Serve(w.Context(), ln, &fasthttp.Server{Handler: handler(w)})
	}); err != nil {
		log.Fatal(err)
	}
}

func handler(w *prefork.Worker) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		if string(ctx.Path()) == "/slow" {
			time.Sleep(time.Second)
		}
		fmt.Fprintf(ctx, "hello from worker %d of generation %d\n", w.Slot(), w.Generation())
	}
}
