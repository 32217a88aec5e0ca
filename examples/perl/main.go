// Perl is a manager whose workers are another program: Starlet, a web server in
// Perl. Starlet was written for start_server and runs unchanged. The manager
// binds the socket and passes it on in SERVER_STARTER_PORT. The manager
// controls the number of workers, so Starlet must not start workers itself.
//
// Install Starlet, run the example, and send a request. Then edit the
// application, replace the workers, and stop the program. It prints its PID.
//
//	apt-get install starlet
//	go run ./examples/perl
//	curl http://127.0.0.1:8080/
//	edit examples/perl/app.psgi
//	kill -HUP PID
//	kill PID
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"syscall"

	"github.com/prefork-go/prefork"
)

var (
	listen  = flag.String("listen", "127.0.0.1:8080", "address to serve on")
	workers = flag.Int("workers", 3, "number of workers")
	app     = flag.String("app", "examples/perl/app.psgi", "PSGI application, read when a worker starts")
)

func main() {
	flag.Parse()
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: *workers,
		Command:    []string{"plackup", "--server", "Starlet", "--max-workers", "0", "--env", "deployment", *app},
		// After SIGTERM, Starlet finishes its request and exits. Connections
		// that it has not accepted stay in the accept queue for the other
		// workers. If the signal arrives just before Starlet waits for a
		// connection, it exits after the next one, or is killed after
		// StopTimeout and loses nothing.
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, // stop, as Ctrl-C does
			syscall.SIGHUP:  {Signal: syscall.SIGTERM}, // new workers read the app again
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := pm.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("serving on http://%s\n", ln.Addr())
	fmt.Printf("try:  curl http://%s/\n", ln.Addr())
	fmt.Printf("      edit %s, then  kill -HUP %d\n", *app, os.Getpid())
	fmt.Printf("      kill %d, or Ctrl-C: requests in flight are finished first (try /slow)\n", os.Getpid())
	// No function, because main runs only in the manager.
	if err := pm.Run(context.Background(), nil); err != nil {
		log.Fatal(err)
	}
}
