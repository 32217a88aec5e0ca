// Rolling is a server whose workers are replaced one after another by SIGHUP.
// Each worker is stopped only when its replacement has warmed up and reported
// that it is ready. If a new generation fails, the previous workers keep
// running.
//
// Run it, send a request, edit the template, and reload. Then break the
// template (write {{) and reload again: the server keeps the last good one. PID
// is the manager's pid, which the first line shows.
//
//	go run ./examples/rolling
//	curl http://127.0.0.1:8080/
//	edit examples/rolling/page.txt
//	kill -HUP PID
//	kill PID
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
	page    = flag.String("page", "examples/rolling/page.txt", "template of the response, read again on HUP")
)

func main() {
	flag.Parse()
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: *workers,
		MaxSurge:   1, // one replacement at a time: at most one worker more than MaxWorkers
		Readiness:  prefork.Readiness{Explicit: true, Timeout: 10 * time.Second},
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, // stop, as Ctrl-C does
			syscall.SIGHUP:  {Rolling: true},           // replace the workers
		},
		// Called in the manager, once for each generation. An error is only
		// logged.
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
		help(ln.Addr().String())
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		response, err := warmUp(w)
		if err != nil {
			return err // before Ready: this generation fails
		}
		w.Ready() // from now on the manager may stop the worker that this one replaces
		handler := func(rw http.ResponseWriter, _ *http.Request) { response.Execute(rw, w) }
		return preforkhttp.Serve(w, ln, &http.Server{Handler: http.HandlerFunc(handler)})
	}); err != nil {
		log.Fatal(err)
	}
}

func help(address string) {
	pid := os.Getpid()
	fmt.Printf("serving on http://%s with %d workers; the manager's pid is %d\n", address, *workers, pid)
	fmt.Printf("try:  curl http://%s/\n", address)
	fmt.Printf("      edit %s, then  kill -HUP %d\n", *page, pid)
	fmt.Printf("      break it (write {{) and reload: the previous workers keep running\n")
}

// warmUp does everything that a worker needs before it can serve. A real
// program might load data, connect to a database or fill a cache. Here warmUp
// parses the template and executes it once.
func warmUp(w *prefork.Worker) (*template.Template, error) {
	response, err := template.New("page").Parse(string(w.Passed()))
	if err != nil {
		return nil, err
	}
	time.Sleep(100 * time.Millisecond) // simulates long work
	return response, response.Execute(new(strings.Builder), w)
}
