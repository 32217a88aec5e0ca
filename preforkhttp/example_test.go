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

// The manager binds the socket and four workers serve on it. A worker that stops
// answers the requests that its clients have sent.
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
		handler := func(rw http.ResponseWriter, r *http.Request) {
			fmt.Fprintln(rw, "hello from worker", w.Ordinal())
		}
		return preforkhttp.Serve(w, ln, &http.Server{Handler: http.HandlerFunc(handler)})
	})
	if err != nil {
		log.Fatal(err)
	}
}
