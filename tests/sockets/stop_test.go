//go:build unix

package sockets_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("slowToStop", slowToStop) }

// closesLate is a Command that closes its socket on TERM, and lives on.
const closesLate = `trap 'exec 3>&-; while :; do sleep 1; done' TERM; echo here; while :; do sleep 0.05; done`

// slowToStop is a program whose worker closes its listener when it is stopped,
// and lives on, as if a long request were in flight. After the stop the manager
// starts again, on the same address.
func slowToStop() {
	kind, network, address := os.Args[1], os.Args[2], os.Args[3]
	cfg := prefork.Config{MaxWorkers: 1, StopTimeout: 3 * time.Second}
	if kind == "Command" {
		cfg.Command = []string{"/bin/sh", "-c", closesLate}
	}
	pm := testprog.NewManager(cfg)
	listen := pm.Listen
	if kind == "ListenPerWorker" {
		listen = pm.ListenPerWorker
	}
	var ln net.Listener
	bind := func() {
		var err error
		if ln, err = listen(network, address); err != nil {
			testprog.Print("cannot listen: %v", err)
			os.Exit(1)
		}
	}
	bind()
	work := func(w *prefork.Worker) error {
		ctx := w.Context()
		testprog.Print("here")
		<-ctx.Done()
		ln.Close()
		time.Sleep(time.Hour)
		return nil
	}
	if kind == "Run" {
		pm.Run(context.Background(), work)
	} else {
		testprog.UntilTerm(pm, work)
	}
	testprog.Print("again")
	bind()
	pm.StartFunc(work)
}

// "From the moment when nobody will accept any more, the manager's own copies of
// the listening sockets are closed, so that clients are refused at once."
func TestStopRefusesClients(t *testing.T) {
	for _, kind := range []string{"Run", "Start", "ListenPerWorker", "Command"} {
		for _, network := range []string{"tcp", "unix"} {
			t.Run(kind+" "+network, func(t *testing.T) {
				t.Parallel()
				free, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				address := free.Addr().String()
				free.Close()
				if network == "unix" {
					address = filepath.Join(t.TempDir(), "s")
				}
				p := preforktest.Start(t, "slowToStop", kind, network, address)
				p.Expect(`^here$`)
				if conn, err := net.Dial(network, address); err != nil {
					t.Error(err)
				} else {
					conn.Close()
				}
				p.Signal(syscall.SIGTERM)
				for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(10 * time.Millisecond) {
					conn, err := net.Dial(network, address)
					if err != nil {
						break
					}
					conn.Close()
					if time.Now().After(deadline) {
						t.Fatal("a client is still accepted")
					}
				}
				for _, line := range p.Lines() {
					if line == "again" {
						t.Fatal("the worker has exited already")
					}
				}
				p.Expect(`^again$`)
				p.Expect(`^here$`)
				if conn, err := net.Dial(network, address); err != nil {
					t.Error(err)
				} else {
					conn.Close()
				}
				p.Kill()
				p.WaitGone()
			})
		}
	}
}
