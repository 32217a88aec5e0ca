// Perl is a manager whose workers are another program: Starlet, a web server in Perl that was written for start_server
// and runs as it is. The manager binds the socket and hands it on by SERVER_STARTER_PORT; how many workers there are is
// the manager's business, so Starlet is told to make none of its own.
//
//	apt-get install starlet
//	go run ./examples/perl
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
	app     = flag.String("app", "examples/perl/app.psgi", "the application; each worker reads it when it starts")
)

func main() {
	flag.Parse()
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: *workers,
		Command:    []string{"plackup", "--server", "Starlet", "--max-workers", "0", "--env", "deployment", *app},
		// Starlet, told to stop, finishes its request and ends; connections that it has not accepted stay in the queue of
		// the socket for the other workers. One that is told just as it goes to wait for a connection notices after the next
		// one, or is killed after StopTimeout, with nothing to lose.
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, // stop; so does Ctrl-C
			syscall.SIGHUP:  {Signal: syscall.SIGTERM}, // replace the workers: the new ones read the application again
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
	fmt.Printf("      kill %d, or Ctrl-C: requests under way are finished first (try /slow)\n", os.Getpid())
	if err := pm.Run(context.Background(), nil); err != nil { // no function: main runs in the manager alone
		log.Fatal(err)
	}
}
