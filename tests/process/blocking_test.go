//go:build linux

package process_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforkhttp"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("sharesBlocking", sharesBlocking) }

// sharedServers are ways to read from a shared socket until the Context ends.
var sharedServers = map[string]struct {
	network string
	serve   func(*prefork.Worker, net.Listener, net.PacketConn) error
}{
	"preforkhttp": {"tcp", func(w *prefork.Worker, ln net.Listener, _ net.PacketConn) error {
		return preforkhttp.Serve(w, ln, &http.Server{})
	}},
	"preforkhttp on unix": {"unix", func(w *prefork.Worker, ln net.Listener, _ net.PacketConn) error {
		return preforkhttp.Serve(w, ln, &http.Server{})
	}},
	"http.Serve": {"tcp", func(w *prefork.Worker, ln net.Listener, _ net.PacketConn) error {
		context.AfterFunc(w.Context(), func() { ln.Close() })
		http.Serve(ln, nil)
		return nil
	}},
	"datagrams": {"udp", func(w *prefork.Worker, _ net.Listener, pc net.PacketConn) error {
		context.AfterFunc(w.Context(), func() { pc.Close() })
		for buf := make([]byte, 100); ; {
			if _, _, err := pc.ReadFrom(buf); err != nil {
				return nil
			}
		}
	}},
}

// sharesBlocking runs three workers with one of sharedServers. One of them makes the shared
// socket blocking while all of them read from it.
func sharesBlocking() {
	kind := sharedServers[os.Args[1]]
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 3, StopTimeout: 3 * time.Second, OnChildReap: func(_ *prefork.Manager, e prefork.Exit) {
		testprog.Print("exit: %s", e.Reason)
	}})
	var ln net.Listener
	var pc net.PacketConn
	var err error
	var address net.Addr
	if kind.network == "udp" {
		if pc, err = pm.ListenPacket("udp", "127.0.0.1:0"); err == nil {
			address = pc.LocalAddr()
		}
	} else if ln, err = pm.Listen(kind.network, os.Args[2]); err == nil {
		address = ln.Addr()
	}
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() {
		testprog.Print("at %s", address)
	}
	pm.Run(context.Background(), func(w *prefork.Worker) error {
		if w.Slot() == 0 {
			time.AfterFunc(300*time.Millisecond, func() {
				var shared any = ln
				if ln == nil {
					shared = pc
				}
				f, err := shared.(interface{ File() (*os.File, error) }).File()
				if err != nil {
					log.Fatal(err)
				}
				f.Fd() // sets O_NONBLOCK off, for all workers
				testprog.Print("blocking")
			})
		}
		return kind.serve(w, ln, pc)
	})
}

// Workers stop although one of them has made the shared socket blocking by File
// and Fd, and all of them are in a system call that no deadline ends.
func TestBlockingSocket(t *testing.T) {
	for name, kind := range sharedServers {
		t.Run(name, func(t *testing.T) {
			address := "127.0.0.1:0"
			if kind.network == "unix" {
				address = preforktest.SocketDir(t) + "/s"
			}
			p := preforktest.New(t, "sharesBlocking", name, address)
			p.Start()
			address = p.Expect(`^at (\S+)$`)[1]
			p.Expect(`^blocking$`)
			for range 30 { // after each, a worker enters the blocking call
				nc, err := net.Dial(kind.network, address)
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprint(nc, "GET / HTTP/1.0\r\n\r\n")
				time.Sleep(5 * time.Millisecond)
				nc.Close()
			}
			began := time.Now()
			p.Signal(term)
			for _, why := range p.ExpectN(3, `^exit: (.*)$`) {
				if why[1] != "stopped" && why[1] != "finished" {
					t.Errorf("a worker's exit: %s", why[1])
				}
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("the stop took %v", took)
			}
			p.Wait()
		})
	}
}
