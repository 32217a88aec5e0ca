//go:build unix

package main

import (
	"flag"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

func init() { preforktest.Register("grpc", main) }

var long = flag.Bool("long", false, "do 100 reloads instead of 10")

func start(t *testing.T, workers int) (p *preforktest.Program, address string) {
	p = preforktest.Start(t, "grpc", "-listen", "127.0.0.1:0", "-workers", fmt.Sprint(workers))
	address = p.Expect(`^serving gRPC on (\S+) with`)[1]
	p.ExpectN(workers, `worker ready`)
	return p, address
}

func connect(t *testing.T, address string) *grpc.ClientConn {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestClient(t *testing.T) {
	p, address := start(t, 1)
	client := preforktest.Start(t, "grpc", "-listen", address, "-call", "gopher")
	client.Expect(`^hello gopher from worker 0 of generation 1$`)
	p.Signal(syscall.SIGTERM)
	waitExit(t, p)
}

// A load is the state that the clients share.
type load struct {
	t            *testing.T
	address      string
	clients      sync.WaitGroup
	done, failed atomic.Int64
	stop         atomic.Bool
}

// start starts n clients that call the method until stop. If perCall is set,
// each call has its own connection.
func (l *load) start(n int, method string, perCall bool) {
	for range n {
		conn := connect(l.t, l.address)
		l.clients.Go(func() { l.client(conn, method, perCall) })
	}
}

func (l *load) client(conn *grpc.ClientConn, method string, perCall bool) {
	defer func() { conn.Close() }()
	for !l.stop.Load() {
		greeting, err := greet(conn, method, "you")
		if err != nil || !strings.HasPrefix(greeting, "hello you from ") {
			if l.failed.Add(1) <= 10 {
				l.t.Errorf("%q, %v", greeting, err)
			}
		}
		l.done.Add(1)
		if perCall {
			conn.Close()
			conn = connect(l.t, l.address)
		}
	}
}

// Repeated reloads fail no call. The calls are short and slow ones on
// persistent connections, and short ones that each have a connection.
func TestReloadsUnderLoad(t *testing.T) {
	reloads := 10
	if *long {
		reloads = 100
	}
	const workers = 3
	p, address := start(t, workers)
	l := &load{t: t, address: address}
	l.start(6, "Greet", false)
	l.start(3, "Greet", true)
	l.start(3, "GreetSlowly", false)
	for range reloads {
		p.Signal(syscall.SIGHUP)
		p.ExpectN(workers, `worker ready`)
		before := l.done.Load()
		preforktest.WaitFor(t, "100 calls served by the new workers", func() bool {
			return l.done.Load() >= before+100
		})
	}
	l.stop.Store(true)
	l.clients.Wait()
	p.Signal(syscall.SIGTERM)
	waitExit(t, p)
	t.Logf("%d reloads: %d calls, %d failed", reloads, l.done.Load(), l.failed.Load())
}

// A stopping manager finishes the calls in flight, and clients that watch the
// health are notified.
func TestStop(t *testing.T) {
	p, address := start(t, 1)
	conn := connect(t, address)
	defer conn.Close()
	watch, err := grpc_health_v1.NewHealthClient(conn).Watch(t.Context(), new(grpc_health_v1.HealthCheckRequest))
	if err != nil {
		t.Fatal(err)
	}
	health := func() grpc_health_v1.HealthCheckResponse_ServingStatus {
		response, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return response.Status
	}
	if got := health(); got != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health %v", got)
	}
	slow, err := conn.NewStream(t.Context(), new(grpc.StreamDesc), "/example.Greeter/GreetSlowly")
	if err != nil {
		t.Fatal(err)
	}
	if err := slow.SendMsg(wrapperspb.String("you")); err != nil {
		t.Fatal(err)
	}
	// Sent after the slow call: the response shows that the worker has both.
	if _, err := greet(conn, "Greet", "you"); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGTERM)
	if got := health(); got != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health while stopping: %v", got)
	}
	if err := slow.RecvMsg(new(wrapperspb.StringValue)); err != nil {
		t.Errorf("call in flight: %v", err)
	}
	conn.Close() // ends the watch, which would have no end
	waitExit(t, p)
}

// waitExit waits for the exit of the program. It fails the test if the program
// or a worker has failed.
func waitExit(t *testing.T, p *preforktest.Program) {
	t.Helper()
	if state := p.Wait(); !state.Success() {
		t.Errorf("manager: %v", state)
	}
	for _, line := range p.Lines() {
		if strings.Contains(line, "worker failed") || strings.Contains(line, "worker killed") {
			t.Error(line)
		}
	}
}
