//go:build unix

package sockets_test

import (
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("unlike", unlike) }

// given runs program echo with the listeners of addresses, as systemd does: the
// prelude sets the variables.
func given(t *testing.T, prelude string, addresses []string, args ...string) (p *preforktest.Program, lns []net.Listener) {
	t.Helper()
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	p = preforktest.New(t, "echo", args...)
	for _, address := range addresses {
		ln, err := net.Listen("tcp4", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		file, err := ln.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		lns, p.Cmd.ExtraFiles = append(lns, ln), append(p.Cmd.ExtraFiles, file)
	}
	p.Cmd.Args = append([]string{"sh", "-c", prelude + ` exec "$0" "$@"`, p.Cmd.Path}, args...)
	p.Cmd.Path = sh
	return p.Start(), lns
}

// A sole given socket of the network fits any request, with one log line that
// names both addresses.
func TestSoleGivenSocketFits(t *testing.T) {
	for _, prelude := range []string{"SERVER_STARTER_PORT='9000=3'", "LISTEN_PID=$$ LISTEN_FDS=1"} {
		for _, request := range []string{"tcp :8080", "tcp 0.0.0.0:8080", "tcp4 127.0.0.1:8080", "tcp localhost:8080"} {
			p, lns := given(t, prelude, []string{"127.0.0.1:0"}, request)
			p.ExpectN(2, `^up 1$`)
			if got, err := ask("tcp", lns[0].Addr().String(), ""); err != nil || got != "generation 1\n" {
				t.Errorf("%s: %q, %v", request, got, err)
			}
			p.Signal(term)
			testprog.ExpectSuccess(t, p)
			_, address, _ := strings.Cut(request, " ")
			n := 0
			for _, line := range p.Lines() {
				if strings.Contains(line, "given socket instead of the requested address") {
					n++
					if !strings.Contains(line, address) || !strings.Contains(line, lns[0].Addr().String()) {
						t.Errorf("%s: the line does not name both addresses: %s", request, line)
					}
				}
			}
			if n != 1 {
				t.Errorf("%s: %d lines about it, want 1", request, n)
			}
		}
	}
}

// Each given socket that the program does not ask for is one warning. Of two
// sockets none fits another address.
func TestGivenSocketNotUsed(t *testing.T) {
	p, lns := given(t, "LISTEN_PID=$$ LISTEN_FDS=3", []string{"127.0.0.1:0", "127.0.0.2:0", "127.0.0.3:0"}, "tcp 127.0.0.2:0")
	p.ExpectN(2, `^up 1$`)
	p.Signal(hup)
	p.ExpectN(2, `^up 2$`)
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
	for i, want := range []int{1, 0, 1} {
		n := 0
		for _, line := range p.Lines() {
			if strings.Contains(line, "given socket is not used") && strings.Contains(line, lns[i].Addr().String()) {
				n++
			}
		}
		if n != want {
			t.Errorf("%d warnings about socket %d, want %d", n, i, want)
		}
	}
	p, _ = given(t, "LISTEN_PID=$$ LISTEN_FDS=2", []string{"127.0.0.1:0", "127.0.0.2:0"}, "tcp 127.0.0.3:0")
	p.Expect(`no such socket was inherited \(tcp4 127.0.0.1:\d+, tcp4 127.0.0.2:\d+\)`)
	p.Wait()
}

// Sockets that systemd gave to another process are named in the error of bind.
func TestGivenToAnotherProcess(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, prelude := range []string{"LISTEN_PID=1", "LISTEN_PID="} {
		p, _ := given(t, prelude+" LISTEN_FDS=1", []string{"127.0.0.1:0"}, "tcp "+ln.Addr().String())
		p.Expect(`address already in use \(LISTEN_FDS=1 was ignored, since LISTEN_PID=1? is not this process, \d+: a wrapper between systemd and this program must exec it\)`)
		p.Wait()
	}
}

// unlike is a program whose workers make other calls of Listen than the manager,
// by its argument.
func unlike() {
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 2, TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Signal: term}}})
	listen := func() net.Listener {
		ln, err := pm.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		return ln
	}
	var public, admin net.Listener
	listenPublic := func() { public = listen() }
	listenAdmin := func() { admin, _ = pm.Listen("tcp", "127.0.0.1:0") }
	switch {
	case !prefork.IsWorker():
		listenPublic()
		listenAdmin()
		testprog.Print("public %s", public.Addr())
		testprog.Print("admin %s", admin.Addr())
	case os.Args[1] == "reversed":
		listenAdmin()
		listenPublic()
	case os.Args[1] == "admin":
		listenAdmin()
	}
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		testprog.Print("worker of generation %d: public %s, admin %s", w.Generation(), addressOf(public), addressOf(admin))
		<-w.Context().Done()
		return nil
	})
}

func addressOf(ln net.Listener) string {
	if ln == nil {
		return "none"
	}
	return ln.Addr().String()
}

// The place of the call distinguishes two sockets that the program requests with
// the same words, also in a worker that makes the calls in another order. A
// socket that a worker does not ask for by its Start is one warning in each
// generation.
func TestWorkersThatListenUnlike(t *testing.T) {
	for mode, want := range map[string]struct {
		public, admin bool
		warnings      int
	}{"reversed": {true, true, 0}, "admin": {false, true, 1}, "none": {false, false, 2}} {
		t.Run(mode, func(t *testing.T) {
			p := preforktest.Start(t, "unlike", mode)
			public, admin := p.Expect(`^public (.*)$`)[1], p.Expect(`^admin (.*)$`)[1]
			if !want.public {
				public = "none"
			}
			if !want.admin {
				admin = "none"
			}
			for gen := 1; gen <= 2; gen++ {
				p.ExpectN(2, fmt.Sprintf(`^worker of generation %d: public %s, admin %s$`, gen, public, admin))
				p.Signal(map[int]os.Signal{1: hup, 2: term}[gen])
			}
			testprog.ExpectSuccess(t, p)
			for gen := 1; gen <= 2; gen++ {
				n := 0
				for _, line := range p.Lines() {
					if strings.Contains(line, "socket not used by a worker") && strings.Contains(line, fmt.Sprintf("gen=%d", gen)) {
						n++
					}
				}
				if n != want.warnings {
					t.Errorf("generation %d: %d warnings, want %d", gen, n, want.warnings)
				}
			}
		})
	}
}
