// Grpc is a prefork gRPC server. The manager binds the socket, its workers
// serve, and SIGHUP replaces them. A stopping worker finishes the calls in
// flight and makes its clients connect to another worker.
//
// Run it, call it from another terminal, replace the workers, and stop it. PID
// is the manager's pid, which the first line shows.
//
//	go run ./examples/grpc
//	go run ./examples/grpc -call gopher
//	kill -HUP PID
//	kill PID
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

var (
	listen  = flag.String("listen", "127.0.0.1:50051", "address to serve on, or to call")
	workers = flag.Int("workers", runtime.NumCPU(), "number of workers")
	call    = flag.String("call", "", "call a running server, which greets this `name`")
)

func main() {
	flag.Parse()
	if *call != "" {
		client()
		return
	}
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: *workers,
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, // stop, as Ctrl-C does
			syscall.SIGHUP:  {Signal: syscall.SIGTERM}, // reload: workers exit and are replaced
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := pm.Listen("tcp", *listen) // bound by the manager, inherited by each worker
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() { // main runs in every worker too, up to Run
		fmt.Printf("serving gRPC on %s with %d workers; the manager's pid is %d\n",
			ln.Addr(), *workers, os.Getpid())
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		return serve(w, ln)
	}); err != nil {
		log.Fatal(err)
	}
}

// stopTimeout limits GracefulStop, which waits for all calls, even for streams
// without an end. It should be shorter than Config.StopTimeout, after which the
// manager kills the worker.
const stopTimeout = 20 * time.Second

// connectionTimeout limits how long a client that sends nothing delays the
// exit.
const connectionTimeout = 5 * time.Second

// serve serves on ln until the worker must stop, and then drains.
func serve(w *prefork.Worker, ln net.Listener) error {
	srv := grpc.NewServer(grpc.ConnectionTimeout(connectionTimeout))
	srv.RegisterService(greeter(w), nil)
	status := health.NewServer()
	grpc_health_v1.RegisterHealthServer(srv, status)
	counted := &listener{Listener: ln}
	context.AfterFunc(w.Context(), func() { counted.Close() })
	if err := srv.Serve(counted); w.Context().Err() == nil {
		return err
	}
	counted.unread.Wait()
	status.Shutdown() // reports NOT_SERVING to the clients that watch the health
	timeout := time.AfterFunc(stopTimeout, srv.Stop)
	defer timeout.Stop()
	srv.GracefulStop() // sends GOAWAY: clients lose no call and open a new connection
	return nil
}

// A listener counts the accepted connections from which the server has not
// read. GracefulStop alone closes a connection that was accepted just before.
// The client then waits one second before it connects again. During that second
// it fails all calls that are made without WaitForReady. In three runs of ten
// reloads under load, 1, 4 and 53,390 calls failed. With this listener none
// failed.
type listener struct {
	net.Listener
	unread sync.WaitGroup
}

func (l *listener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.unread.Add(1)
	return &conn{nc, sync.OnceFunc(l.unread.Done)}, nil
}

// A conn reports the first read of the server. GracefulStop waits for a
// connection only after that read.
type conn struct {
	net.Conn
	read func()
}

func (c *conn) Read(b []byte) (int, error) {
	c.read()
	return c.Conn.Read(b)
}

func (c *conn) Close() error {
	c.read()
	return c.Conn.Close()
}

// greeter returns the description of the service. Usually protoc generates it.
// Here it is written by hand, so that the example does not need protoc.
func greeter(w *prefork.Worker) *grpc.ServiceDesc {
	method := func(pause time.Duration) grpc.MethodHandler {
		return func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			name := new(wrapperspb.StringValue)
			if err := decode(name); err != nil {
				return nil, err
			}
			time.Sleep(pause)
			return wrapperspb.String(fmt.Sprintf("hello %s from worker %d of generation %d",
				name.Value, w.Slot(), w.Generation())), nil
		}
	}
	return &grpc.ServiceDesc{ServiceName: "example.Greeter", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{
		{MethodName: "Greet", Handler: method(0)},
		{MethodName: "GreetSlowly", Handler: method(200 * time.Millisecond)},
	}}
}

func client() {
	conn, err := grpc.NewClient(*listen, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	greeting, err := greet(conn, "Greet", *call)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(greeting)
}

func greet(conn *grpc.ClientConn, method, name string) (string, error) {
	greeting := new(wrapperspb.StringValue)
	err := conn.Invoke(context.Background(), "/example.Greeter/"+method, wrapperspb.String(name), greeting)
	return greeting.Value, err
}
