package sockets_test

import (
	"errors"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("quiet", quiet) }

// quiet serves a socket in two workers, with two standbys or as a Command. Its
// arguments are the kind of listening, the network and the address.
func quiet() {
	kind := os.Args[1]
	if kind == "accept" { // the Command
		ln, err := net.FileListener(os.NewFile(3, "given"))
		if err != nil {
			log.Fatal(err)
		}
		log.Fatal(closeAll(ln))
	}
	cfg := prefork.Config{
		MaxWorkers: 2, Standby: 2, ErrRespawnInterval: -1, TrapSignals: prefork.Signals{term: {Signal: term}},
		Observe: func(ev prefork.Event) {
			if ev, ok := ev.(prefork.StateEvent); ok {
				testprog.Print("%v pid %d", ev.Worker.State, ev.Worker.PID)
			}
		},
	}
	if kind == "command" {
		cfg.Standby, cfg.Command = 0, []string{os.Args[0], "accept"}
	}
	pm := testprog.NewManager(cfg)
	serve := listenQuietly(pm, kind, os.Args[2], os.Args[3])
	testprog.UntilTerm(pm, func(*prefork.Worker) error { return serve() })
}

// listenQuietly listens, prints the address, and returns the worker's function.
func listenQuietly(pm *prefork.Manager, kind, network, address string) (serve func() error) {
	if network == "udp" {
		listen := pm.ListenPacket
		if kind == "perWorker" {
			listen = pm.ListenPacketPerWorker
		}
		conn, err := listen(network, address)
		if err != nil {
			log.Fatal(err)
		}
		if !prefork.IsWorker() {
			testprog.Print("listens on %s", conn.LocalAddr())
		}
		return func() error { return echoPackets(conn) }
	}
	listen := pm.Listen
	if kind == "perWorker" {
		listen = pm.ListenPerWorker
	}
	ln, err := listen(network, address)
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() {
		testprog.Print("listens on %s", ln.Addr())
	}
	return func() error { return closeAll(ln) }
}

func closeAll(ln net.Listener) error {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		conn.Close()
	}
}

func echoPackets(conn net.PacketConn) error {
	buf := make([]byte, 512)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		if _, err := conn.WriteTo(buf[:n], from); err != nil {
			return err
		}
	}
}

// exchange makes n connections, or sends n datagrams, one after the other.
func exchange(t *testing.T, n int, network, address string) {
	t.Helper()
	buf := make([]byte, 512)
	var conn net.Conn
	for range n {
		var err error
		if conn == nil {
			if conn, err = net.Dial(network, address); err != nil {
				t.Fatal(err)
			}
			conn.SetDeadline(time.Now().Add(time.Minute))
		}
		if network == "udp" { // one client, or the ports of the machine are used up
			if _, err = conn.Write([]byte("hello")); err == nil {
				_, err = conn.Read(buf)
			}
			if err != nil {
				t.Fatal(err)
			}
			continue
		}
		if _, err = conn.Read(buf); err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal(err)
		}
		conn.Close()
		conn = nil
	}
	if conn != nil {
		conn.Close()
	}
}

// Neither the manager nor a parked standby wakes up when a worker is sent a
// connection or a datagram. A standby that gets a slot serves as any worker.
func TestSocketsWakeOnlyWorkers(t *testing.T) {
	for _, row := range []struct{ kind, network string }{
		{"shared", "tcp"}, {"shared", "unix"}, {"shared", "udp"}, {"perWorker", "tcp"}, {"perWorker", "udp"}, {"command", "tcp"},
	} {
		t.Run(row.kind+" "+row.network, func(t *testing.T) {
			n := testprog.Times(30000) / 3
			if testprog.Long() {
				n = 30000
			}
			address := "127.0.0.1:0"
			if row.network == "unix" {
				address = filepath.Join(testprog.SocketDir(t), "s")
			}
			p := preforktest.Start(t, "quiet", row.kind, row.network, address)
			address = p.Expect(`^listens on (.*)$`)[1]
			idle, workers := []int{p.PID()}, []int{}
			want := []string{`^ready pid (\d+)$`, `^ready pid (\d+)$`}
			if row.kind != "command" {
				want = append(want, `^standby pid (\d+)$`, `^standby pid (\d+)$`)
			}
			for i, m := range p.ExpectAll(want...) {
				if pid, _ := strconv.Atoi(m[1]); i < 2 {
					workers = append(workers, pid)
				} else {
					idle = append(idle, pid)
				}
			}
			exchange(t, 10, row.network, address)
			// A process that is woken has one for nearly each exchange. Some of the
			// runtime's own come at any time, however few the exchanges are.
			most := int64(n / 10)
			before := switches(t, idle)
			exchange(t, n, row.network, address)
			after := switches(t, idle)
			for i, pid := range idle {
				t.Logf("process %d of %v: %d context switches in %d exchanges", i, idle, after[i]-before[i], n)
				if after[i]-before[i] > most {
					t.Errorf("process %d (manager %d): %d context switches in %d exchanges, want at most %d", pid, p.PID(), after[i]-before[i], n, most)
				}
			}
			if row.kind != "command" {
				for _, pid := range workers { // the standbys serve then
					syscall.Kill(pid, syscall.SIGKILL)
					p.ExpectAll(`^ready pid \d+$`, `^standby pid \d+$`)
				}
				exchange(t, 10, row.network, address)
			}
			p.Signal(term)
			p.Wait()
		})
	}
}

func switches(t *testing.T, pids []int) (all []int64) {
	t.Helper()
	for _, pid := range pids {
		n, err := preforktest.ContextSwitches(pid)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, n)
	}
	return all
}
