// Standby is an HTTP server whose workers take long to start: they load a model first. One is started ahead, and takes
// the place of a worker that dies at once.
//
//	go run ./examples/standby
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
	listen = flag.String("listen", "127.0.0.1:8080", "address to serve on")
	ahead  = flag.Int("standby", 1, "number of workers that are started ahead")
	loads  = flag.Duration("loads", 3*time.Second, "how long a worker takes to load")
)

func main() {
	flag.Parse()
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: 2,
		Standby:    *ahead,
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, // stop; so does Ctrl-C
			syscall.SIGHUP:  {Rolling: true},           // reload: the next generation has a standby of its own
		},
		Observe: tell,
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
		// Before Run, in which a standby is parked: what comes after it would be done when the standby is needed.
		time.Sleep(*loads)
		model = fmt.Sprintf("the model loaded in %v", *loads)
	} else {
		fmt.Printf("serving on http://%s\n", ln.Addr())
		fmt.Printf("try:  curl http://%s/crash    a worker dies, and a standby is there\n", ln.Addr())
		fmt.Printf("      kill -HUP %d    reload\n", os.Getpid())
		fmt.Printf("      kill %d         stop; so does Ctrl-C\n", os.Getpid())
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		return preforkhttp.Serve(w, ln, &http.Server{Handler: handler(w, model)})
	}); err != nil {
		log.Fatal(err)
	}
}

// tell runs in the manager, with every event.
func tell(ev prefork.Event) {
	change, ok := ev.(prefork.StateEvent)
	switch {
	case !ok:
	case change.Worker.State == prefork.StateStandby:
		fmt.Printf("%d stands by\n", change.Worker.PID)
	case change.From == prefork.StateStandby && change.Worker.State == prefork.StateStarting:
		fmt.Printf("%d stood by and takes slot %d\n", change.Worker.PID, change.Worker.Slot)
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
