//go:build unix

package sockets_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() {
	preforktest.Register("sockets", sockets)
	preforktest.Register("pools", pools)
}

// sockets listens on a TCP socket and on two unix sockets of the same name, one
// after the other, and serves its name on each.
func sockets() {
	dir := os.Args[1]
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 1, TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Signal: term}}})
	listen := func(network, address string) net.Listener {
		ln, err := pm.Listen(network, address)
		if err != nil {
			log.Fatal(err)
		}
		return ln
	}
	lns := []net.Listener{listen("tcp", "127.0.0.1:0"), listen("tcp", "127.0.0.1:0"), listen("unix", filepath.Join(dir, "s"))}
	if !prefork.IsWorker() {
		for i, ln := range lns {
			testprog.Print("socket %d %s", i, ln.Addr())
		}
	}
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		if _, err := pm.Listen("tcp", "127.0.0.1:1"); !errors.Is(err, prefork.ErrNotInherited) {
			testprog.Print("wrong: %v", err)
		} else {
			testprog.Print("refused: %v", err)
		}
		for i, ln := range lns {
			go func() {
				for {
					conn, err := ln.Accept()
					if err != nil {
						return
					}
					fmt.Fprintf(conn, "socket %d generation %d\n", i, w.Generation())
					conn.Close()
				}
			}()
		}
		ctx := w.Context()
		testprog.Print("up %d", w.Generation())
		<-ctx.Done()
		for _, ln := range lns {
			ln.Close()
		}
		return nil
	})
}

// The manager binds, and the workers inherit. Several equal calls match in
// order. The file of a unix socket outlives the workers that close their
// listeners; only the manager removes it.
func TestListen(t *testing.T) {
	dir := testprog.SocketDir(t)
	p := preforktest.Start(t, "sockets", dir)
	var addresses []string
	for i := range 3 {
		addresses = append(addresses, p.Expect(fmt.Sprintf(`^socket %d (.*)$`, i))[1])
	}
	networks := []string{"tcp", "tcp", "unix"}
	for gen := 1; gen <= 2; gen++ {
		p.Expect(`^refused: prefork: Listen\("tcp", "127.0.0.1:1"\): no such socket was inherited \(tcp 127.0.0.1:0 \(taken\), tcp 127.0.0.1:0 \(taken\), unix .*/s \(taken\)\)`)
		p.Expect(fmt.Sprintf(`^up %d$`, gen))
		for i, address := range addresses {
			if got, want := talk(t, networks[i], address), fmt.Sprintf("socket %d generation %d\n", i, gen); got != want {
				t.Errorf("%s answers %q, want %q", address, got, want)
			}
		}
		p.Signal(hup)
	}
	p.Expect(`^up 3$`)
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
	if _, err := os.Lstat(filepath.Join(dir, "s")); !os.IsNotExist(err) {
		t.Errorf("the file of the unix socket is left: %v", err)
	}
}

func talk(t *testing.T, network, address string) string {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(conn); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// pools is a program with two Managers.
func pools() {
	table := prefork.Signals{term: {Signal: term}}
	web, queue := testprog.NewManager(prefork.Config{Name: "web", MaxWorkers: 2, TrapSignals: table}), testprog.NewManager(prefork.Config{Name: "queue", MaxWorkers: 1, TrapSignals: table})
	ln, err := web.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	done := make(chan bool)
	for name, pm := range map[string]*prefork.Manager{"web": web, "queue": queue} {
		go func() {
			for pm.SignalReceived() != term {
				pm.StartFunc(func(w *prefork.Worker) error {
					ctx := w.Context()
					testprog.Print("%s %d at %t", name, w.Slot(), ln.Addr().Network() == "tcp")
					<-ctx.Done()
					return nil
				})
				if prefork.IsWorker() {
					testprog.Print("Start of %s returned in a worker", name)
					os.Exit(1)
				}
			}
			pm.WaitAllChildren(context.Background())
			done <- true
		}()
	}
	<-done
	<-done
	testprog.Print("done")
}

// "Several Managers in one program carry different names. In a worker, Start of
// any Manager but its own does not return."
func TestTwoPools(t *testing.T) {
	p := preforktest.Start(t, "pools")
	testprog.ExpectAll(p, map[string]int{"web 0 at true": 1, "web 1 at true": 1, "queue 0 at true": 1})
	p.Signal(term)
	p.Expect(`^done$`)
	testprog.ExpectSuccess(t, p)
	n := 0
	for _, line := range p.Lines() {
		if strings.Contains(line, " at true") {
			n++
		}
		if strings.Contains(line, "returned in a worker") {
			t.Error(line)
		}
	}
	if n != 3 {
		t.Errorf("%d workers worked, want 3", n)
	}
}
