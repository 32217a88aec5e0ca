package sockets_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() {
	preforktest.Register("optioned", optioned)
	preforktest.Register("adopted", adopted)
	preforktest.Register("fileModes", fileModes)
}

func setKeepalive(_, _ string, conn syscall.RawConn) (err error) {
	cerr := conn.Control(func(raw uintptr) { err = unix.SetsockoptInt(int(raw), unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1) })
	if cerr != nil {
		return cerr
	}
	return err
}

// optioned is a program whose workers print the options of their socket. Its
// arguments are a method, a network and an address. USR1 adds a worker.
func optioned() {
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 2, TrapSignals: prefork.Signals{term: {Signal: term}, usr1: {}, hup: {Signal: term}}})
	lc := prefork.ListenConfig{Control: setKeepalive, Backlog: 77}
	var s any
	var err error
	switch method, network, address := os.Args[1], os.Args[2], os.Args[3]; method {
	case "Listen":
		s, err = lc.Listen(pm, network, address)
	case "ListenPerWorker":
		s, err = lc.ListenPerWorker(pm, network, address)
	default:
		lc.Backlog = 0
		s, err = lc.ListenPacket(pm, network, address)
	}
	if err != nil {
		log.Fatal(err)
	}
	for pm.SignalReceived() != term {
		if pm.SignalReceived() == usr1 {
			pm.SetMaxWorkers(3)
		}
		pm.StartFunc(func(w *prefork.Worker) error {
			runtime.KeepAlive(s)
			for raw := 3; raw < 64; raw++ {
				alive, err := unix.GetsockoptInt(raw, unix.SOL_SOCKET, unix.SO_KEEPALIVE)
				if domain, _ := unix.GetsockoptInt(raw, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || domain != unix.AF_INET {
					continue
				}
				var backlog uint32
				if info, err := unix.GetsockoptTCPInfo(raw, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
					backlog = info.Sacked // of a listening socket
				}
				testprog.Print("slot %d: keepalive %d, backlog %d", w.Slot(), alive, backlog)
				break
			}
			<-w.Context().Done()
			return nil
		})
	}
	pm.WaitAllChildren(context.Background())
}

// Control and Backlog apply to every kind of socket, and to the sockets of slots
// that are added later.
func TestSocketOptions(t *testing.T) {
	for _, args := range [][]string{
		{"Listen", "tcp", "127.0.0.1:0"}, {"ListenPerWorker", "tcp", "127.0.0.1:0"}, {"ListenPacket", "udp", "127.0.0.1:0"},
	} {
		t.Run(args[0], func(t *testing.T) {
			want := "keepalive 1, backlog 77$"
			if args[1] == "udp" {
				want = "keepalive 1, backlog 0$"
			}
			p := preforktest.Start(t, "optioned", args...)
			p.ExpectAll(`^slot 0: `+want, `^slot 1: `+want)
			p.Signal(usr1)
			p.Expect(`^slot 2: ` + want)
			p.Signal(term)
			testprog.ExpectSuccess(t, p)
		})
	}
}

// adopted is a program with a socket of its own, which the Manager adopts. Its
// arguments are a method, a network and an address.
func adopted() {
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 2, TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Signal: term}, syscall.SIGUSR2: {Upgrade: true}}})
	var lc prefork.ListenConfig
	if !prefork.IsWorker() && os.Getenv("SECOND") == "" {
		own, err := net.Listen(os.Args[2], os.Args[3])
		if err != nil {
			log.Fatal(err)
		}
		if u, ok := own.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
		if lc.File, err = own.(interface{ File() (*os.File, error) }).File(); err != nil {
			log.Fatal(err)
		}
		own.Close()
		os.Setenv("SECOND", "1") // for the successor
	}
	listen := lc.Listen
	if os.Args[1] == "ListenPerWorker" {
		listen = lc.ListenPerWorker
	}
	ln, err := listen(pm, os.Args[2], "own")
	if err != nil {
		log.Fatal(err)
	}
	if lc.File != nil {
		lc.File.Close()
	}
	if !prefork.IsWorker() {
		testprog.Print("manager %d on %s", os.Getpid(), ln.Addr())
		go func() {
			<-prefork.TookOver()
			testprog.Print("took over")
		}()
	}
	pm.Run(context.Background(), func(w *prefork.Worker) error {
		ctx := w.Context()
		testprog.Print("up %d", w.Generation())
		answerStreams(ctx, ln, fmt.Sprintln("generation", w.Generation()))
		return nil
	})
}

// A Manager adopts a socket that the program has bound: workers and a successor
// inherit it.
func TestAdoptedSocket(t *testing.T) {
	path := filepath.Join(testprog.SocketDir(t), "s")
	for _, args := range [][]string{
		{"Listen", "tcp", "127.0.0.1:0"}, {"ListenPerWorker", "tcp", "127.0.0.1:0"}, {"Listen", "unix", path},
	} {
		t.Run(strings.Join(args[:2], " "), func(t *testing.T) {
			p := preforktest.Start(t, "adopted", args...)
			address := p.Expect(`^manager \d+ on (.*)$`)[1]
			p.Expect(`^took over$`)
			for gen := 1; gen <= 2; gen++ {
				p.ExpectN(2, fmt.Sprintf(`^up %d$`, gen))
				if got, err := ask(args[1], address, ""); err != nil || got != fmt.Sprintln("generation", gen) {
					t.Errorf("%q, %v", got, err)
				}
				p.Signal(map[int]os.Signal{1: hup, 2: syscall.SIGUSR2}[gen])
			}
			successor := p.Expect(`^manager (\d+) on (.*)$`)
			if successor[2] != address {
				t.Errorf("the successor is on %s, want %s", successor[2], address)
			}
			p.Expect(`^took over$`)
			pid, _ := strconv.Atoi(successor[1])
			syscall.Kill(pid, term)
			p.WaitGone()
		})
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the Manager has removed the program's file: %v", err)
	}
	os.Remove(path)
}

// fileModes is a program that prints what is wrong with the files of its sockets,
// in the directory of its argument, and with the errors for wrong options.
func fileModes() {
	dir := os.Args[1]
	pm := testprog.NewManager(prefork.Config{TrapSignals: prefork.Signals{}})
	syscall.Umask(0o027)
	for i, mode := range []os.FileMode{0o666, 0o660, 0o600, 0o777} {
		lc := prefork.ListenConfig{Mode: mode}
		if os.Getuid() == 0 {
			lc.GID = 12345
		}
		path := filepath.Join(dir, strconv.Itoa(i))
		var err error
		if i%2 == 0 {
			_, err = lc.Listen(pm, "unix", path)
		} else {
			_, err = lc.ListenPacket(pm, "unixgram", path)
		}
		if err != nil {
			log.Fatal(err)
		}
		info, err := os.Lstat(path)
		if err != nil {
			log.Fatal(err)
		}
		group := int(info.Sys().(*syscall.Stat_t).Gid)
		if got := info.Mode().Perm(); got != mode || group != max(lc.GID, os.Getgid()) {
			testprog.Print("wrong: mode %v, group %d; want %v, %d", got, group, mode, lc.GID)
		}
		os.Remove(path)
	}
	tcp := func(lc prefork.ListenConfig) error { _, err := lc.Listen(pm, "tcp", "127.0.0.1:0"); return err }
	_, datagrams := prefork.ListenConfig{Backlog: 5}.ListenPacket(pm, "udp", "127.0.0.1:0")
	_, bits := prefork.ListenConfig{Mode: os.ModeSetuid | 0o600}.Listen(pm, "unix", filepath.Join(dir, "x"))
	for want, err := range map[string]error{
		"leave out Mode":        tcp(prefork.ListenConfig{Mode: 0o600}),
		"UID and GID":           tcp(prefork.ListenConfig{UID: 1}),
		"negative Backlog":      tcp(prefork.ListenConfig{Backlog: -1}),
		"and not a tcp socket":  tcp(prefork.ListenConfig{File: os.Stdin}),
		"leave out Backlog":     datagrams,
		"more than permissions": bits,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			testprog.Print("wrong: %v, want %q", err, want)
		}
	}
	testprog.Print("done")
}

// A unix socket's file has its mode and group, whatever the umask. Options that a
// socket cannot have are errors.
func TestSocketFileMode(t *testing.T) {
	p := preforktest.Start(t, "fileModes", testprog.SocketDir(t))
	p.Expect(`^done$`)
	testprog.ExpectSuccess(t, p)
	for _, line := range p.Lines() {
		if strings.HasPrefix(line, "wrong") {
			t.Error(line)
		}
	}
}
