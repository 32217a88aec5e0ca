// Standby is an HTTP server whose workers take long to start, because they load
// a model first. The manager starts one worker in advance. When a worker
// crashes, this standby replaces it at once and need not load the model.
//
// Run it and wait for the line "standby PID is ready". Then crash a worker,
// reload, and stop the program. It prints the commands.
//
//	go run ./examples/standby
//	curl http://127.0.0.1:8080/
//	curl http://127.0.0.1:8080/crash
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
	listen   = flag.String("listen", "127.0.0.1:8080", "address to serve on")
	standbys = flag.Int("standby", 1, "number of workers started in advance")
	loadTime = flag.Duration("loads", 3*time.Second, "how long a worker takes to load")
)

func main() {
	flag.Parse()
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: 2,
		Standby:    *standbys,
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, // stop, as Ctrl-C does
			syscall.SIGHUP:  {Rolling: true},           // reload, also the standby
		},
		Observe: printStandby,
	})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := pm.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	model := ""
	if prefork.IsWorker() {
		// Run parks a standby. Anything that takes long should happen before
		// Run: after it, the standby would do it only when it is needed.
		time.Sleep(*loadTime)
		model = fmt.Sprintf("the model loaded in %v", *loadTime)
	} else {
		fmt.Printf("serving on http://%s\n", ln.Addr())
		fmt.Printf("try:  curl http://%s/crash    a worker crashes, and a standby replaces it\n", ln.Addr())
		fmt.Printf("      kill -HUP %d    reload\n", os.Getpid())
		fmt.Printf("      kill %d         stop, as Ctrl-C does\n", os.Getpid())
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		return preforkhttp.Serve(w, ln, &http.Server{Handler: handler(w, model)})
	}); err != nil {
		log.Fatal(err)
	}
}

// printStandby is called in the manager for every event.
func printStandby(ev prefork.Event) {
	change, ok := ev.(prefork.StateEvent)
	if !ok {
		return
	}
	w := change.Worker
	switch {
	case w.State == prefork.StateStandby:
		fmt.Printf("standby %d is ready\n", w.PID)
	case change.From == prefork.StateStandby && w.State == prefork.StateStarting:
		fmt.Printf("standby %d fills slot %d\n", w.PID, w.Slot)
	}
}

func handler(w *prefork.Worker, model string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(rw, "worker %d, pid %d, has %s\n", w.Slot(), os.Getpid(), model)
	})
	mux.HandleFunc("/crash", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	return mux
}
