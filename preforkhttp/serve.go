package preforkhttp

import (
	"errors"
	"net"
	"net/http"
	"reflect"
	"time"

	"github.com/prefork-go/prefork"
)

// maxIdleLimit is the largest default of Options.IdleLimit.
const maxIdleLimit = 5 * time.Second

// Options are the options of a drain. The zero Options are those of Serve and
// ServeTLS.
type Options struct {
	// IdleLimit is how long all connections must be idle before a drain closes
	// them. Until then, clients that send a request learn by "Connection: close"
	// that they should use another connection. Zero means 5 seconds, or half of
	// Config.StopTimeout if that is less. A negative value means not to wait.
	//
	// The limit is never longer than http.Server.IdleTimeout (or ReadTimeout, if
	// that is zero), after which net/http closes idle connections anyway. An
	// interrupt (Ctrl-C) reduces it to 100 ms. So does the last quarter of
	// Config.StopTimeout, in which a worker should no longer wait.
	IdleLimit time.Duration

	// OnDrain is called when the drain begins, in its own goroutine. It should
	// make long responses end, such as streams of events, and send a goodbye on
	// hijacked connections, such as WebSocket. The drain does not wait for
	// OnDrain, but for the responses. Nil means no call.
	//
	// A handler can also watch the Context of the worker by itself.
	OnDrain func()
}

// Serve is the function Serve with these options.
func (o Options) Serve(w *prefork.Worker, ln net.Listener, srv *http.Server) error {
	return o.serveWorker(w, ln, srv, func(ln net.Listener) error { return srv.Serve(ln) })
}

// ServeTLS is the function ServeTLS with these options.
func (o Options) ServeTLS(w *prefork.Worker, ln net.Listener, srv *http.Server,
	certFile, keyFile string) error {
	return o.serveWorker(w, ln, srv, func(ln net.Listener) error {
		return srv.ServeTLS(ln, certFile, keyFile)
	})
}

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
// Functions that srv.RegisterOnShutdown has added before Serve run when the drain
// begins. Those that it adds later run after the drain.
//
// If the program itself calls srv.Shutdown or srv.Close, Serve returns nil as
// soon as no connection is open; after Close that is when the handlers have
// returned. It does not return earlier, because that usually ends the process
// while Shutdown is still waiting for requests.
//
// A nil argument is an error that describes what to do.
//
// If serving ends for another reason, for example because the program closed the
// listener, Serve returns the error at once and does not shut down anything.
//
// For TLS, a program should use ServeTLS. A listener of tls.NewListener works too. For HTTP/2,
// its config must have "h2" in NextProtos, and so must srv.TLSConfig if that is
// set.
func Serve(w *prefork.Worker, ln net.Listener, srv *http.Server) error {
	return Options{}.Serve(w, ln, srv)
}

// ServeTLS is Serve over TLS, with the parameters of http.Server.ServeTLS: if
// the file names are empty, the certificate is that of srv.TLSConfig. It offers
// HTTP/2.
func ServeTLS(w *prefork.Worker, ln net.Listener, srv *http.Server,
	certFile, keyFile string) error {
	return Options{}.ServeTLS(w, ln, srv, certFile, keyFile)
}

// activity lets a server pause as one of the worker's activities.
type activity struct {
	*prefork.Worker
	own *prefork.Activity
}

func (a activity) Checkpoint() bool { return a.own.Checkpoint() }

func (o Options) serveWorker(w *prefork.Worker, ln net.Listener, srv *http.Server,
	accept func(net.Listener) error) error {
	if err := checkArguments(w, ln, srv); err != nil {
		return err
	}
	a := activity{w, w.Activity()}
	defer a.own.End()
	stop := w.StopTimeout()
	l := limits{idle: o.idleLimit(stop, srv), late: max(0, stop-stop/4), interrupted: w.Interrupted()}
	return serveWithLimits(w.Context(), a, l, o.OnDrain, ln, srv, accept)
}

var (
	errNoWorker = errors.New("preforkhttp: Serve without a Worker: call it in the function of Run " +
		"or StartFunc, with the Worker that this is given, or with Manager.Worker after Start has returned false")
	errNoListener = errors.New("preforkhttp: Serve without a listener: every worker runs main again and must " +
		"call Listen too, so call it before Run or Start and not only if !prefork.IsWorker(), and check its error")
	errNoServer = errors.New("preforkhttp: Serve without a Server: use &http.Server{}")
)

// checkArguments returns an error for a nil argument. A *net.TCPListener that is
// nil is not a nil net.Listener.
func checkArguments(w *prefork.Worker, ln net.Listener, srv *http.Server) error {
	v := reflect.ValueOf(ln)
	switch {
	case w == nil:
		return errNoWorker
	case ln == nil, v.Kind() == reflect.Pointer && v.IsNil():
		return errNoListener
	case srv == nil:
		return errNoServer
	}
	return nil
}

// idleLimit returns the limit for idle connections. A negative stop means that
// the worker has any time to stop.
func (o Options) idleLimit(stop time.Duration, srv *http.Server) time.Duration {
	limit := max(0, o.IdleLimit)
	if o.IdleLimit == 0 {
		limit = maxIdleLimit
		if stop >= 0 {
			limit = min(limit, stop/2)
		}
	}
	timeout := srv.IdleTimeout
	if timeout == 0 {
		timeout = srv.ReadTimeout // as net/http does
	}
	if timeout > 0 {
		limit = min(limit, timeout)
	}
	return limit
}

// limits are the times of a drain.
type limits struct {
	idle        time.Duration   // how long connections must be idle
	late        time.Duration   // after this time idle is no longer than hurryLimit; 0 for never
	interrupted <-chan struct{} // when this is closed, too
}

// hurryLimit is the limit for idle connections after an interrupt, or late in the
// drain.
const hurryLimit = 100 * time.Millisecond
