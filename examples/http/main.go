// Http is a prefork HTTP server: the manager binds the socket and reads the configuration, its workers serve, and HUP
// replaces them with workers that have the new configuration.
//
//	go run ./examples/http
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"net/http"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforkhttp"
)

var (
	listen  = flag.String("listen", "127.0.0.1:8080", "address to serve on")
	workers = flag.Int("workers", runtime.NumCPU(), "number of workers")
	config  = flag.String("config", "examples/http/config.json", "configuration, read again on HUP")
)

// Config is what the manager reads and every worker gets.
type Config struct{ Greeting string }

func main() {
	flag.Parse()
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: *workers,
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, // stop; so does Ctrl-C
			syscall.SIGHUP:  {Signal: syscall.SIGTERM}, // reload: workers end, new ones take their place
		},
		Reload: readConfig,
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
		fmt.Printf("      edit %s, then  kill -HUP %d\n", *config, os.Getpid())
		fmt.Printf("      kill %d, or Ctrl-C: requests under way are finished first (try /slow)\n", os.Getpid())
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		var c Config
		if err := json.Unmarshal(w.Passed(), &c); err != nil {
			return err
		}
		return preforkhttp.Serve(w, ln, &http.Server{Handler: handler(w, c)})
	}); err != nil {
		log.Fatal(err)
	}
}

// readConfig runs in the manager. What it returns is handed to the workers that come after it; when it fails, the
// workers that there are go on as they are.
func readConfig() ([]byte, error) {
	data, err := os.ReadFile(*config)
	if errors.Is(err, fs.ErrNotExist) {
		return json.Marshal(Config{Greeting: "hello"})
	}
	if err == nil {
		err = json.Unmarshal(data, new(Config))
	}
	return data, err
}

func handler(w *prefork.Worker, c Config) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(rw, "%s from worker %d of generation %d, pid %d\n", c.Greeting, w.Slot(), w.Generation(), os.Getpid())
	})
	mux.HandleFunc("/slow", func(rw http.ResponseWriter, _ *http.Request) {
		time.Sleep(time.Second)
		fmt.Fprintln(rw, "slow, and not cut off")
	})
	return mux
}
