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

func TestMain(m *testing.M) { preforktest.Main(m, map[string]func(){"grpc": main}) }

var long = flag.Bool("long", false, "100 reloads, not 10")

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
	client.Expect(`^hello gopher, says worker 0 of generation 1$`)
	p.Signal(syscall.SIGTERM)
	ended(t, p)
}

// Reload after reload fails no call: short and slow ones over connections that are kept, and each over its own.
func TestReloadsUnderLoad(t *testing.T) {
	reloads := 10
	if *long {
		reloads = 100
	}
	const workers = 3
	p, address := start(t, workers)
	var wg sync.WaitGroup
	var done, failed atomic.Int64
	var stop atomic.Bool
	clients := func(n int, method string, fresh bool) {
		for range n {
			conn := connect(t, address)
			wg.Go(func() {
				defer func() { conn.Close() }()
				for !stop.Load() {
					if greeting, err := greet(conn, method, "you"); err != nil || !strings.HasPrefix(greeting, "hello you, ") {
						if failed.Add(1) <= 10 {
							t.Errorf("%q, %v", greeting, err)
						}
					}
					done.Add(1)
					if fresh {
						conn.Close()
						conn = connect(t, address)
					}
				}
			})
		}
	}
	clients(6, "Greet", false)
	clients(3, "Greet", true)
	clients(3, "GreetSlowly", false)
	for range reloads {
		p.Signal(syscall.SIGHUP)
		p.ExpectN(workers, `worker ready`)
		served := done.Load()
		preforktest.WaitFor(t, "100 calls served by the new workers", func() bool { return done.Load() >= served+100 })
	}
	stop.Store(true)
	wg.Wait()
	p.Signal(syscall.SIGTERM)
	ended(t, p)
	t.Logf("%d reloads: %d calls, %d failed", reloads, done.Load(), failed.Load())
}

// What is under way when the manager is told to stop is finished first, and those who watch the health are told.
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
		t.Errorf("it is %v", got)
	}
	slow, err := conn.NewStream(t.Context(), new(grpc.StreamDesc), "/example.Greeter/GreetSlowly")
	if err != nil {
		t.Fatal(err)
	}
	if err := slow.SendMsg(wrapperspb.String("you")); err != nil {
		t.Fatal(err)
	}
	if _, err := greet(conn, "Greet", "you"); err != nil { // was sent behind the slow one, so the worker has that too
		t.Fatal(err)
	}
	p.Signal(syscall.SIGTERM)
	if got := health(); got != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("when it stops it is %v", got)
	}
	if err := slow.RecvMsg(new(wrapperspb.StringValue)); err != nil {
		t.Errorf("the call under way: %v", err)
	}
	conn.Close() // ends the watch, which has no end by itself
	ended(t, p)
}

// ended waits for the end of the program, and checks that its workers ended well too.
func ended(t *testing.T, p *preforktest.Program) {
	t.Helper()
	if state := p.Wait(); !state.Success() {
		t.Errorf("it ended with %v", state)
	}
	for _, line := range p.Lines() {
		if strings.Contains(line, "worker failed") || strings.Contains(line, "worker killed") {
			t.Error(line)
		}
	}
}
