// Package preforkhttp serves HTTP in a worker and stops without losing a
// request.
//
// # Drain
//
// When the Context of the worker ends, Serve drains the server:
//
//  1. It accepts the connections in the accept queue of the socket, for at most
//     1 second. Then it closes the worker's copy of the socket. The manager still
//     holds the socket for the other workers.
//  2. It adds "Connection: close" to every response, so that clients move to
//     other workers with their next request. An upgrade that the handler honors
//     is the exception. HTTP/2 clients receive GOAWAY.
//  3. It waits until no connection is open, or until no request is in flight and
//     nothing has happened on any connection for Options.IdleLimit: 5 seconds, or
//     half of Config.StopTimeout if that is less. The time before the drain
//     counts, so a worker with long idle connections stops at once. After an
//     interrupt (Ctrl-C) the limit is 100 ms.
//  4. It closes the idle connections and calls http.Server.Shutdown. A connection
//     on which part of a request has arrived is not idle.
//
// Options.OnDrain and the functions of http.Server.RegisterOnShutdown run when the
// drain begins.
//
// Serve never interrupts a request in flight, however long it takes. The manager
// kills a worker that takes longer than Config.StopTimeout, which should exceed
// the longest request.
//
// A response that does not end by itself, such as a stream of events or a long
// poll, should end when the Context of the worker does:
//
//	for {
//		select {
//		case ev := <-events:
//			fmt.Fprintf(rw, "data: %s\n\n", ev)
//			rw.(http.Flusher).Flush()
//		case <-w.Context().Done():
//			return // the client connects again, to another worker
//		case <-r.Context().Done():
//			return
//		}
//	}
//
// http.Server.Shutdown alone loses requests: those that net/http has read and
// not yet begun, and those that arrive while it closes their connection. So does
// SetKeepAlivesEnabled(false).
//
// # Pause
//
// During prefork.Manager.Pause the worker accepts no connections and finishes
// the requests in flight. Then it counts as paused; with several servers, after
// all of them have finished. Other concurrent work of the worker should be a
// prefork.Activity. Requests that arrive during the pause on open connections
// wait, and are answered after it.
//
// A request fails only if its client does not wait long enough. A request
// without a body is not begun if its client disconnects or closes its side of
// the connection; the response has status 503. A response that does not end,
// such as a stream of events, keeps the worker from pausing. Hijacked
// connections do not.
//
// # Limits
//
//   - A handler that replaces or deletes the header "Connection" keeps its
//     clients until they are idle.
//   - Serve does not wait for hijacked connections, such as WebSocket, as Shutdown
//     does not. Their handlers should watch the Context of the worker. The h2c
//     handler of golang.org/x/net hijacks every connection of HTTP/2, so Serve
//     does not wait for requests on it. A server of HTTP/2 without TLS should
//     instead call SetUnencryptedHTTP2 of http.Server.Protocols.
//   - Requests that a client has pipelined behind the one whose response closes
//     the connection are not begun. The client has a second to read the response
//     and to close the connection, so that they do not reset it. Server.Close in
//     a drain may wait that second for each such connection.
//   - HTTP/2 requests that arrive after GOAWAY are not begun. Clients send them
//     again, except those with a body that they cannot repeat. net/http sends the
//     number of the last request with GOAWAY. It does not announce GOAWAY first,
//     and Serve cannot: net/http owns the connection. To lose none, a client of
//     Go should set Request.GetBody.
//   - A BaseContext made from the Context of the worker would cancel all requests
//     in flight when the drain begins.
//   - If a listener is wrapped, by tls.NewListener or another package, Serve
//     closes it without accepting the connections in its queue. They are reset if
//     no other worker accepts them. If the listener returns connections of
//     another type than net does, such as *tls.Conn, a request that begins to
//     arrive when the idle limit is reached may be refused, with status 503 and
//     without calling the handler. ServeTLS has neither limit.
//   - A hijacked connection embeds *net.TCPConn or *net.UnixConn. It has their
//     methods, and is not of their type. ConnContext and ConnState get the
//     connection itself.
package preforkhttp
