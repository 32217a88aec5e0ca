//go:build unix

package prefork_test

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforktest"
)

// sockets binds a TCP socket and two unix sockets of one name in turn, and serves its name on each.
func sockets() {
	dir := os.Args[1]
	pm := must(prefork.Config{MaxWorkers: 1, TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Signal: term}}})
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
			say("socket %d %s", i, ln.Addr())
		}
	}
	untilTerm(pm, func(w *prefork.Worker) error {
		if _, err := pm.Listen("tcp", "127.0.0.1:1"); !errors.Is(err, prefork.ErrNotInherited) {
			say("wrong: %v", err)
		} else {
			say("refused: %v", err)
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
		say("up %d", w.Generation())
		<-ctx.Done()
		for _, ln := range lns {
			ln.Close()
		}
		return nil
	})
}

// Listen binds once in the manager and inherits in the workers; several equal calls match in order; the file of a unix
// socket outlives the workers that close their listeners, and is removed by the manager alone.
func TestListen(t *testing.T) {
	dir := preforktest.TempDir(t)
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
				t.Errorf("%s says %q, want %q", address, got, want)
			}
		}
		p.Signal(hup)
	}
	p.Expect(`^up 3$`)
	p.Signal(term)
	wantSuccess(t, p)
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
	web, queue := must(prefork.Config{Name: "web", MaxWorkers: 2, TrapSignals: table}), must(prefork.Config{Name: "queue", MaxWorkers: 1, TrapSignals: table})
	ln, err := web.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	done := make(chan bool)
	for name, pm := range map[string]*prefork.Manager{"web": web, "queue": queue} {
		go func() {
			untilTerm(pm, func(w *prefork.Worker) error {
				ctx := w.Context()
				say("%s %d at %t", name, w.Slot(), ln.Addr().Network() == "tcp")
				<-ctx.Done()
				return nil
			})
			done <- true
		}()
	}
	<-done
	<-done
	say("done")
}

// "Several Managers in one program carry different names. In a worker, Start of any Manager but its own does not return."
func TestTwoPools(t *testing.T) {
	p := preforktest.Start(t, "pools")
	expectAll(p, map[string]int{"web 0 at true": 1, "web 1 at true": 1, "queue 0 at true": 1})
	p.Signal(term)
	p.Expect(`^done$`)
	wantSuccess(t, p)
	n := 0
	for _, line := range p.Lines() {
		if strings.Contains(line, " at true") {
			n++
		}
	}
	if n != 3 {
		t.Errorf("%d workers worked, want 3", n)
	}
}
