// Fasthttp is a prefork server with fasthttp instead of net/http: HUP replaces its workers, and no request is lost.
//
//	go run ./examples/fasthttp
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
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, // stop; so does Ctrl-C
			syscall.SIGHUP:  {Signal: syscall.SIGTERM}, // reload: workers end, new ones take their place
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
		fmt.Printf("serving on http://%s with %d workers; the manager's pid is %d\n", ln.Addr(), *workers, os.Getpid())
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		// drain.Serve ends by fasthttp's Shutdown, which alone would lose requests.
		return drain.Serve(w.Context(), ln, &fasthttp.Server{Handler: func(ctx *fasthttp.RequestCtx) {
			if string(ctx.Path()) == "/slow" {
				time.Sleep(time.Second)
			}
			fmt.Fprintf(ctx, "hello from worker %d of generation %d\n", w.Slot(), w.Generation())
		}})
	}); err != nil {
		log.Fatal(err)
	}
}
