//go:build unix

package sockets_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	starter "github.com/lestrrat-go/server-starter/listener"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() {
	preforktest.Register("echo", echo)
	preforktest.Register("cat", cat)
	preforktest.Register("foreign", foreign)
}

// echo is a program that answers with its generation on every socket that its
// arguments name ("tcp 127.0.0.1:0"). A worker answers every request that it
// has read before it exits.
func echo() {
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 2, TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Signal: term}}})
	var lns []net.Listener
	var pcs []net.PacketConn
	for _, arg := range os.Args[1:] {
		network, address, _ := strings.Cut(arg, " ")
		if strings.HasPrefix(network, "udp") || network == "unixgram" {
			pc, err := pm.ListenPacket(network, address)
			if err != nil {
				log.Fatal(err)
			}
			pcs = append(pcs, pc)
			address = pc.LocalAddr().String()
		} else {
			ln, err := pm.Listen(network, address)
			if err != nil {
				log.Fatal(err)
			}
			lns = append(lns, ln)
			address = ln.Addr().String()
		}
		if !prefork.IsWorker() {
			testprog.Print("on %s %s", network, address)
		}
	}
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		ctx := w.Context()
		answer := fmt.Sprintln("generation", w.Generation())
		var wg sync.WaitGroup
		for _, ln := range lns {
			wg.Go(func() { answerStreams(ctx, ln, answer) })
		}
		for _, pc := range pcs {
			wg.Go(func() { answerPackets(ctx, pc, answer) })
		}
		testprog.Print("up %d", w.Generation())
		wg.Wait()
		return nil
	})
}

func answerStreams(ctx context.Context, ln net.Listener, answer string) {
	context.AfterFunc(ctx, func() { ln.Close() })
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		conn.Write([]byte(answer))
		conn.Close()
	}
}

func answerPackets(ctx context.Context, pc net.PacketConn, answer string) {
	context.AfterFunc(ctx, func() { pc.SetReadDeadline(time.Now()) })
	buf := make([]byte, 100)
	for {
		_, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		pc.WriteTo([]byte(answer), from)
	}
}

// ask makes one request and returns the answer.
func ask(network, address, own string) (string, error) {
	var conn net.Conn
	var err error
	if network == "unixgram" {
		conn, err = net.DialUnix(network, &net.UnixAddr{Name: own, Net: network}, &net.UnixAddr{Name: address, Net: network})
		defer os.Remove(own)
	} else {
		conn, err = net.Dial(network, address)
	}
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if strings.HasPrefix(network, "udp") || network == "unixgram" {
		if _, err := conn.Write([]byte("who?")); err != nil {
			return "", err
		}
	}
	return bufio.NewReader(conn).ReadString('\n')
}

// Two generations of workers serve every network through reloads. No request
// fails, and every datagram is answered.
func TestEveryNetworkThroughReloads(t *testing.T) {
	dir := testprog.SocketDir(t)
	sockets := []string{
		"tcp 127.0.0.1:0", "tcp4 127.0.0.1:0", "udp 127.0.0.1:0", "udp4 127.0.0.1:0",
		"unix " + filepath.Join(dir, "s"), "unixgram " + filepath.Join(dir, "g"),
	}
	if ln, err := net.Listen("tcp6", "[::1]:0"); err == nil {
		ln.Close()
		sockets = append(sockets, "tcp6 [::1]:0", "udp6 [::1]:0")
	} else {
		t.Logf("no IPv6 here (%v): tcp6 and udp6 are left out", err)
	}
	if runtime.GOOS == "linux" { // abstract sockets
		sockets = append(sockets, fmt.Sprintf("unix @prefork-%d", os.Getpid()), fmt.Sprintf("unixgram @prefork-%d", os.Getpid()))
	}
	p := preforktest.Start(t, "echo", sockets...)
	var clients sync.WaitGroup
	var stop atomic.Bool
	asked := make([]atomic.Int64, len(sockets))
	for i := range sockets {
		on := p.Expect(`^on (\S+) (.*)$`)
		clients.Go(func() {
			for n := 0; !stop.Load(); n++ {
				own := filepath.Join(dir, fmt.Sprintf("client%d.%d", i, n))
				if got, err := ask(on[1], on[2], own); err != nil || !strings.HasPrefix(got, "generation ") {
					t.Errorf("%s %s, request %d: %q, %v", on[1], on[2], n, got, err)
					return
				}
				asked[i].Add(1)
			}
		})
	}
	for gen := 1; gen <= 4; gen++ {
		p.ExpectN(2, fmt.Sprintf(`^up %d$`, gen))
		for i := range asked {
			before := asked[i].Load()
			preforktest.WaitFor(t, "answers on "+sockets[i], func() bool { return t.Failed() || asked[i].Load() >= before+20 })
		}
		if gen < 4 {
			p.Signal(hup)
		}
	}
	stop.Store(true)
	clients.Wait()
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
	for i, socket := range sockets {
		t.Logf("%s: %d answers", socket, asked[i].Load())
	}
}

// A socket file that a dead manager left is replaced. If another program serves
// on it, Listen fails and leaves it in place.
func TestSocketFileLeftBehind(t *testing.T) {
	path := filepath.Join(testprog.SocketDir(t), "s")
	first := preforktest.Start(t, "echo", "unix "+path, "unixgram "+path+".dgram")
	first.ExpectN(2, `^up 1$`)
	second := preforktest.Start(t, "echo", "unix "+path)
	second.Expect(`prefork: Listen\("unix", ".*/s"\): another program serves on .*/s: stop it first: address already in use`)
	second.Wait()
	third := preforktest.Start(t, "echo", "unixgram "+path+".dgram")
	third.Expect(`another program serves on .*/s.dgram: stop it first`)
	third.Wait()
	if got, err := ask("unix", path, ""); err != nil || got != "generation 1\n" {
		t.Errorf("the first one answers %q, %v", got, err)
	}
	first.Kill()
	first.Wait()
	first.WaitGone()
	again := preforktest.Start(t, "echo", "unix "+path, "unixgram "+path+".dgram")
	again.ExpectN(2, `^up 1$`)
	if got, err := ask("unix", path, ""); err != nil || got != "generation 1\n" {
		t.Errorf("after the first was killed: %q, %v", got, err)
	}
	again.Signal(term)
	testprog.ExpectSuccess(t, again)

	plain := path + ".plain"
	defer os.Remove(plain)
	if err := os.WriteFile(plain, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := preforktest.Start(t, "echo", "unix "+plain)
	p.Expect(`exists and is not a socket`)
	p.Wait()
	if data, err := os.ReadFile(plain); err != nil || string(data) != "precious" {
		t.Errorf("a file that was in the way: %q, %v", data, err)
	}
}

// Under start_server or systemd, Listen returns the sockets whose addresses
// match, and binds none.
func TestSocketsFromOutside(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	tcp, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := pc.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for name, how := range map[string]struct{ prelude, tcp string }{
		"start_server": {"SERVER_STARTER_PORT='127.0.0.1:" + port + "=3;u" + pc.LocalAddr().String() + "=4' SERVER_STARTER_GENERATION=1", ":" + port},
		"systemd":      {"LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=web:dns", "127.0.0.1:0"},
	} {
		t.Run(name, func(t *testing.T) {
			run := func(args ...string) *preforktest.Program {
				p := preforktest.New(t, "echo", args...)
				sh, err := exec.LookPath("sh")
				if err != nil {
					t.Fatal(err)
				}
				p.Cmd.Args = append([]string{"sh", "-c", how.prelude + ` exec "$0" "$@"`, p.Cmd.Path}, args...)
				p.Cmd.Path = sh
				p.Cmd.ExtraFiles = []*os.File{tcp, udp}
				return p.Start()
			}
			p := run("tcp "+how.tcp, "udp 127.0.0.1:0")
			for gen := 1; gen <= 2; gen++ {
				p.ExpectN(2, fmt.Sprintf(`^up %d$`, gen))
				for _, addr := range []net.Addr{ln.Addr(), pc.LocalAddr()} {
					if got, err := ask(addr.Network(), addr.String(), ""); err != nil || got != fmt.Sprintln("generation", gen) {
						t.Errorf("on %v: %q, %v", addr, got, err)
					}
				}
				if gen == 1 {
					p.Signal(hup)
				}
			}
			p.Signal(term)
			testprog.ExpectSuccess(t, p)

			p = run("tcp6 [::1]:1")
			p.Expect(`prefork: Listen\("tcp6", "\[::1\]:1"\): no such socket was inherited \(tcp4 127.0.0.1:\d+.*, udp4 127.0.0.1:\d+.*\): start the program with such a socket, or listen on one of these`)
			p.Wait()
			p = run("tcp :0", "tcp :0")
			// The only socket is taken.
			p.Expect(`no such socket was inherited \(udp4 127.0.0.1:\d+.*\)`)
			p.Wait()
		})
	}
	for _, value := range []string{"8080", "8080=3;", "0", "8080=99"} {
		p := preforktest.New(t, "echo", "tcp 127.0.0.1:0")
		p.Cmd.Env = append(p.Cmd.Env, "SERVER_STARTER_PORT="+value)
		p.Start()
		p.Expect(`prefork: Listen\("tcp", "127.0.0.1:0"\): SERVER_STARTER_PORT`)
		p.Wait()
	}
}

// cat is a manager with a TCP and a unix socket. Its Command is the program in
// its arguments.
func cat() {
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 1, Command: os.Args[2:], ListenFDs: true, TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Signal: term}}})
	for _, socket := range [][2]string{{"tcp", "127.0.0.1:0"}, {"unix", os.Args[1]}} {
		ln, err := pm.Listen(socket[0], socket[1])
		if err != nil {
			log.Fatal(err)
		}
		testprog.Print("on %s %s", ln.Addr().Network(), ln.Addr())
	}
	if err := pm.Run(context.Background(), nil); err != nil {
		log.Fatal(err)
	}
}

// foreign is a program that knows start_server and systemd but not this
// library.
func foreign() {
	lns, err := starter.ListenAll()
	if err != nil {
		log.Fatal(err)
	}
	generation := os.Getenv("SERVER_STARTER_GENERATION")
	testprog.Print("%d sockets, generation %s, LISTEN_FDS %s, LISTEN_PID right %t, marker %q, step %q", len(lns), generation, os.Getenv("LISTEN_FDS"),
		os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()), os.Getenv("PREFORK_WORKER"), os.Getenv("PREFORK_COMMAND"))
	for _, ln := range lns {
		go answerStreams(context.Background(), ln, "generation "+generation+"\n")
	}
	testprog.Print("up %s", generation)
	select {}
}

// A Command gets the Manager's sockets in the way of start_server and of
// systemd.
func TestSocketsToACommand(t *testing.T) {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := preforktest.Start(t, "cat", filepath.Join(testprog.SocketDir(t), "s"), "env", "PREFORKTEST_PROGRAM=foreign", path)
	preforktest.New(t, "foreign") // it is found through env
	on := p.ExpectN(2, `^on (\S+) (.*)$`)
	for gen := 1; gen <= 3; gen++ {
		p.Expect(fmt.Sprintf(`^2 sockets, generation %d, LISTEN_FDS 2, LISTEN_PID right true, marker "", step ""$`, gen))
		p.Expect(fmt.Sprintf(`^up %d$`, gen))
		for _, s := range on {
			if got, err := ask(s[1], s[2], ""); err != nil || got != fmt.Sprintln("generation", gen) {
				t.Errorf("on %s %s: %q, %v", s[1], s[2], got, err)
			}
		}
		if gen < 3 {
			p.Signal(hup)
		}
	}
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
}

// Listen refuses a socket that SERVER_STARTER_PORT cannot express. ListenFDs
// requires a Command.
func TestSocketsThatACommandCannotGet(t *testing.T) {
	_, err := prefork.New(prefork.Config{Name: t.Name(), ListenFDs: true})
	var ce *prefork.ConfigError
	if !errors.As(err, &ce) || ce.Field != "ListenFDs" {
		t.Errorf("New = %v, want a ConfigError of ListenFDs", err)
	}
	p := preforktest.Start(t, "cat", "@a;b=c", "true")
	p.Expect(`prefork: Listen\("unix", "@a;b=c"\): unix @a;b=c cannot be named in SERVER_STARTER_PORT, which a Command reads`)
	if ws, ok := p.Wait().Sys().(syscall.WaitStatus); !ok || ws.ExitStatus() != 1 {
		t.Errorf("it ended with %v", p.Cmd.ProcessState)
	}
}
