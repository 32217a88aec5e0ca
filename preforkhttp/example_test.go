//go:build unix

package preforkhttp_test

import (
	"context"
	"fmt"
	"log"
	"net/http"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforkhttp"
)

// A whole server: the manager binds the socket, four workers serve on it, and a worker that is told to stop answers
// what its clients have sent.
func ExampleServe() {
	pm, err := prefork.New(prefork.Config{MaxWorkers: 4})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := pm.Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		log.Fatal(err)
	}
	err = pm.Run(context.Background(), func(w *prefork.Worker) error {
		return preforkhttp.Serve(w, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			fmt.Fprintln(rw, "hello from worker", w.Ordinal())
		})})
	})
	if err != nil {
		log.Fatal(err)
	}
}
