package preforkhttp

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/prefork-go/prefork"
)

// idleLimit is how long connections must be idle before a drain closes them.
const idleLimit = 5 * time.Second

// Serve serves srv on ln until the Context of w ends. Then it drains the server,
// as described in the package documentation, and returns nil. It must be called
// in a worker.
//
// Serve sets srv.Handler, srv.ConnState and srv.ConnContext to functions that
// call the program's own. A nil Handler means http.DefaultServeMux. Unless
// srv.DisableGeneralOptionsHandler is set, Serve answers "OPTIONS *" in place of
// net/http. A second call with the same Server returns an error: a program with two listeners must
// use two Servers, which can share a Handler.
//
// If the program itself calls srv.Shutdown or srv.Close, Serve returns nil as
// soon as no connection is open; after Close that is when the handlers have
// returned. It does not return earlier, because that usually ends the process
// while Shutdown is still waiting for requests.
//
// If serving ends for another reason, for example because the program closed the
// listener, Serve returns the error at once and does not shut down anything.
//
// For TLS, a program should use ServeTLS. A listener of tls.NewListener works too. For HTTP/2,
// its config must have "h2" in NextProtos, and so must srv.TLSConfig if that is
// set.
func Serve(w *prefork.Worker, ln net.Listener, srv *http.Server) error {
	return serveWorker(w, ln, srv, srv.Serve)
}

// ServeTLS is Serve over TLS, with the parameters of http.Server.ServeTLS: if
// the file names are empty, the certificate is that of srv.TLSConfig. It offers
// HTTP/2.
func ServeTLS(w *prefork.Worker, ln net.Listener, srv *http.Server,
	certFile, keyFile string) error {
	return serveWorker(w, ln, srv, func(ln net.Listener) error {
		return srv.ServeTLS(ln, certFile, keyFile)
	})
}

// activity lets a server pause as one of the worker's activities.
type activity struct {
	*prefork.Worker
	own *prefork.Activity
}

func (a activity) Checkpoint() bool { return a.own.Checkpoint() }

func serveWorker(w *prefork.Worker, ln net.Listener, srv *http.Server,
	accept func(net.Listener) error) error {
	a := activity{w, w.Activity()}
	defer a.own.End()
	return serve(w.Context(), a, ln, srv, accept)
}

// serve serves until ctx ends, with one of the methods of srv that serve.
func serve(ctx context.Context, p pauser, ln net.Listener, srv *http.Server,
	accept func(net.Listener) error) error {
	return serveWithLimit(ctx, p, idleLimit, ln, srv, accept)
}
