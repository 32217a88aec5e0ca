// Rolling is a server whose workers HUP replaces one after another: each is told to stop only when its replacement has
// warmed up and said that it is ready. A new generation that fails is given up, and the workers that there are go on.
//
//	go run ./examples/rolling
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"runtime"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforkhttp"
)

var (
	listen  = flag.String("listen", "127.0.0.1:8080", "address to serve on")
	workers = flag.Int("workers", runtime.NumCPU(), "number of workers")
	page    = flag.String("page", "examples/rolling/page.txt", "template of the answer, read again on HUP")
)

func main() {
	flag.Parse()
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: *workers,
		MaxSurge:   1, // one replacement at a time, so never more than one worker too many
		Readiness:  prefork.Readiness{Explicit: true, Timeout: 10 * time.Second},
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, // stop; so does Ctrl-C
			syscall.SIGHUP:  {Rolling: true},           // replace the workers
		},
		// In the manager, once a generation. If it fails, nothing happens but a line in the log.
		Reload: func() ([]byte, error) { return os.ReadFile(*page) },
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
		fmt.Printf("try:  curl http://%s/\n", ln.Addr())
		fmt.Printf("      edit %s, then  kill -HUP %d\n", *page, os.Getpid())
		fmt.Printf("      break it (write {{), and again: the new generation is given up\n")
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		answer, err := warmUp(w)
		if err != nil {
			return err // before Ready: this generation has failed
		}
		w.Ready() // from now on the worker that this one replaces is not needed any more
		return preforkhttp.Serve(w, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			answer.Execute(rw, w)
		})})
	}); err != nil {
		log.Fatal(err)
	}
}

// warmUp does what a worker needs before it can serve: load, connect, fill a cache. Here it parses the template, and
// tries it once.
func warmUp(w *prefork.Worker) (*template.Template, error) {
	answer, err := template.New("page").Parse(string(w.Passed()))
	if err != nil {
		return nil, err
	}
	time.Sleep(100 * time.Millisecond) // as if it were much
	return answer, answer.Execute(new(strings.Builder), w)
}
