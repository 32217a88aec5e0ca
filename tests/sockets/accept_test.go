//go:build unix

package sockets_test

import (
	"context"
	"errors"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("serves", serves) }

// serves is a program that serves in the manager too, by mistake. Its arguments
// are a method, a network and an address.
func serves() {
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 1, TrapSignals: prefork.Signals{term: {Signal: term}}})
	listen := pm.Listen
	if os.Args[1] == "ListenPerWorker" {
		listen = pm.ListenPerWorker
	}
	ln, err := listen(os.Args[2], os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	serve := func(answer string) error {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return err
			}
			conn.Write([]byte(answer + "\n"))
			conn.Close()
		}
	}
	if !prefork.IsWorker() {
		_, file := ln.(interface{ File() (*os.File, error) })
		_, raw := ln.(syscall.Conn)
		testprog.Print("manager on %s, with a file %t, with a descriptor %t", ln.Addr(), file, raw)
		go func() {
			err := serve("manager")
			var netErr net.Error
			testprog.Print("manager ends: %v; to be tried again %t", err, errors.As(err, &netErr) && netErr.Timeout())
		}()
	}
	pm.Run(context.Background(), func(w *prefork.Worker) error {
		context.AfterFunc(w.Context(), func() { ln.Close() })
		testprog.Print("up")
		serve("worker")
		return nil
	})
}

// Accept on the manager's listener is an error that gives the reason. The
// workers get all connections.
func TestManagerDoesNotAccept(t *testing.T) {
	for _, args := range [][]string{
		{"Listen", "tcp", "127.0.0.1:0"},
		{"Listen", "unix", filepath.Join(testprog.SocketDir(t), "s")},
		{"ListenPerWorker", "tcp", "127.0.0.1:0"},
		{"ListenPerWorker", "unix", filepath.Join(testprog.SocketDir(t), "w")},
	} {
		t.Run(strings.Join(args[:2], " "), func(t *testing.T) {
			p := preforktest.Start(t, "serves", args...)
			address := p.Expect(`^manager on (.*), with a file true, with a descriptor true$`)[1]
			p.ExpectAll(`^manager ends: accept `+args[1]+` .*: this is the manager, and its workers accept: serve in the function of Run .*; to be tried again false$`, `^up$`)
			for range 30 {
				if got, err := ask(args[1], address, ""); err != nil || got != "worker\n" {
					t.Fatalf("%q, %v, want the worker's answer", got, err)
				}
			}
			p.Signal(term)
			testprog.ExpectSuccess(t, p)
		})
	}
}
