// Http is a prefork HTTP server. The manager binds the socket and reads the
// configuration, and its workers serve. SIGHUP replaces them with workers that
// have the new configuration.
//
// Run it and send a request. Then edit the configuration, replace the workers
// and stop the program. PID is the manager's pid, which the first line shows. The
// command prefork shows the workers, and its reload ends when they are replaced.
//
//	go run ./examples/http
//	curl http://127.0.0.1:8080/
//	go run ./cmd/prefork -s http status
//	edit examples/http/config.json
//	kill -HUP PID, or go run ./cmd/prefork -s http reload
//	kill PID
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
	"github.com/prefork-go/prefork/ops"
	"github.com/prefork-go/prefork/preforkhttp"
)

var (
	listen  = flag.String("listen", "127.0.0.1:8080", "address to serve on")
	workers = flag.Int("workers", runtime.NumCPU(), "number of workers")
	config  = flag.String("config", "examples/http/config.json", "configuration, read again on HUP")
)

// Config is read by the manager and passed to every worker.
type Config struct{ Greeting string }

func main() {
	flag.Parse()
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: *workers,
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, // stop, as Ctrl-C does
			syscall.SIGHUP:  {Signal: syscall.SIGTERM}, // reload: workers exit and are replaced
		},
		Reload: readConfig,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer ops.Attach(pm)()               // for the command prefork, and systemd
	ln, err := pm.Listen("tcp", *listen) // bound by the manager, inherited by each worker
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() { // main runs in every worker too, up to Run
		help(ln.Addr().String())
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

func help(address string) {
	pid := os.Getpid()
	fmt.Printf("serving on http://%s with %d workers; the manager's pid is %d\n", address, *workers, pid)
	fmt.Printf("try:  curl http://%s/\n", address)
	fmt.Printf("      edit %s, then  kill -HUP %d\n", *config, pid)
	fmt.Printf("      kill %d, or Ctrl-C: requests in flight are finished first (try /slow)\n", pid)
}

// readConfig runs in the manager. It should check the configuration, because
// the workers receive it without another check. Its result is passed to the
// workers that start after it. If it fails, the workers keep running as they
// are.
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
		fmt.Fprintf(rw, "%s from worker %d of generation %d, pid %d\n",
			c.Greeting, w.Slot(), w.Generation(), os.Getpid())
		w.Served(1) // prefork status shows the number
	})
	mux.HandleFunc("/slow", func(rw http.ResponseWriter, _ *http.Request) {
		time.Sleep(time.Second)
		fmt.Fprintln(rw, "slow response, complete")
	})
	return mux
}
