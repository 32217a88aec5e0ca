package preforkhttp

import (
	"net/http"
	"reflect"
	"sync"
)

// onBegin returns a function that calls the hooks of a drain, once: begin, and
// the functions of srv.RegisterOnShutdown. Each runs in its own goroutine, as
// Shutdown does it. They also run if the program calls Shutdown.
//
// Shutdown alone would call the registered functions only after the drain, which
// may wait for them, and Serve cannot call Shutdown earlier: net/http then
// discards each request that it reads. So the functions move from srv to here.
func onBegin(srv *http.Server, begin func()) func() {
	hooks := takeShutdownHooks(srv)
	if begin != nil {
		hooks = append(hooks, begin)
	}
	run := sync.OnceFunc(func() {
		for _, hook := range hooks {
			go hook()
		}
	})
	if len(hooks) > 0 {
		srv.RegisterOnShutdown(run)
	}
	return run
}

// takeShutdownHooks removes the functions of srv.RegisterOnShutdown. net/http
// does not export the field. If it has another name or type, the functions stay,
// and run after the drain. TestRegisterOnShutdown fails then.
func takeShutdownHooks(srv *http.Server) []func() {
	field := reflect.ValueOf(srv).Elem().FieldByName("onShutdown")
	if !field.IsValid() || field.Type() != reflect.TypeFor[[]func()]() {
		return nil
	}
	all := (*[]func())(field.Addr().UnsafePointer())
	hooks := *all
	*all = nil
	return hooks
}
