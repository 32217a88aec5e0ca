// Package preforkhttp serves HTTP in a worker and stops without losing a request.
package preforkhttp

import (
	"net"
	"net/http"
	"time"

	"github.com/prefork-go/prefork"
)

// idleLimit is how long a connection must have been quiet before a drain closes it. Config.StopTimeout should be well
// above it: a worker that is killed in its drain cuts what is open.
const idleLimit = 5 * time.Second

// part is a worker's pausing, for this part of its work alone.
type part struct {
	*prefork.Worker
	part *prefork.Activity
}

func (p part) Checkpoint() bool { return p.part.Checkpoint() }

// Serve serves srv on ln until w's Context ends, then drains what is open, and returns nil. Worker only.
//
// The drain. Serve accepts what has queued on ln (for a second at the most) and closes this worker's copy of it; the
// socket lives on in the manager, for the other workers. Every response from then on says
// "Connection: close" (over HTTP/2: GOAWAY), so that clients move over to other workers as they send requests. This
// goes on until no connection is open, or no request is under way and nothing has happened on any connection for
// 5 seconds; the time before the drain counts too, so a worker whose connections have long been idle ends
// at once. Those are closed then, and srv.Shutdown is called last. A request that is under way is never
// cut by Serve, however long it takes; the manager's StopTimeout is what ends a worker whose requests do not end.
//
// http.Server.Shutdown alone, and SetKeepAlivesEnabled(false) alike, would drop requests that net/http
// has read and not yet begun, and those that arrive while it closes a connection.
//
// A pause (prefork.Manager.Pause). The worker accepts nothing more, and requests that are under way are finished; then it counts
// as paused, with several servers when all have that; what else the worker does at a time is to be a prefork.Activity. Requests that come
// meanwhile on connections that are open wait, and are answered after the pause. So no request fails, unless its client does not wait so long: one without a body whose client goes, or ends its side of the connection, is
// not begun, and the answer has status 503. A response that does not end, such as a stream of events, keeps the worker
// from pausing; hijacked connections do not.
//
// What to know:
//
//   - Serve sets srv.Handler, srv.ConnState and srv.ConnContext to functions that call the program's own (http.DefaultServeMux for no
//     Handler). One Server is for one call; for two listeners use two Servers with one Handler. A second call
//     with the same Server returns an error.
//   - A handler that replaces or deletes the header "Connection" undoes the above: its clients stay until they are quiet.
//     Requests with an Upgrade header are left alone. Hijacked connections (WebSocket) are the program's, as
//     with Shutdown: Serve does not wait for them. They can end on w.Context.
//   - A BaseContext made from w.Context would cancel all requests under way when the drain begins.
//   - For TLS there is ServeTLS. A tls.NewListener(ln, config) works too, with "h2" in config.NextProtos for HTTP/2, and in
//     srv.TLSConfig, if that is set; but what has queued on a listener that is wrapped, by that or another package, is not
//     accepted before it is closed: when the program ends, it is reset.
//   - If the program calls srv.Shutdown or srv.Close itself, Serve returns nil once no connection is open: in a worker its
//     return usually ends the process, and Shutdown may still be waiting for requests. After Close that
//     means once the handlers have returned.
//   - If serving ends for any other reason, such as a listener that the program closed, Serve returns the error at
//     once and has shut nothing down.
func Serve(w *prefork.Worker, ln net.Listener, srv *http.Server) error {
	return serveIn(w, ln, srv, srv.Serve)
}

// ServeTLS is Serve over TLS, as http.Server.ServeTLS: certificate and key come from the files, or from srv.TLSConfig where
// their names are empty, and HTTP/2 is offered.
func ServeTLS(w *prefork.Worker, ln net.Listener, srv *http.Server, certFile, keyFile string) error {
	return serveIn(w, ln, srv, func(ln net.Listener) error { return srv.ServeTLS(ln, certFile, keyFile) })
}

// serveIn is serveBy as a part of a worker's work.
func serveIn(w *prefork.Worker, ln net.Listener, srv *http.Server, by func(net.Listener) error) error {
	p := part{w, w.Activity()}
	defer p.part.End()
	return serveBy(w.Context(), p, idleLimit, ln, srv, by)
}
