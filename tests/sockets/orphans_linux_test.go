package sockets_test

import (
	"log"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("keeps", keeps) }

// keeps is a program whose workers keep their sockets until they are killed. Its
// arguments are a method, a network and an address.
func keeps() {
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 2, OrphanTimeout: 700 * time.Millisecond, StopTimeout: 10 * time.Millisecond, TrapSignals: prefork.Signals{term: {Signal: term}}})
	var err error
	switch method, network, address := os.Args[1], os.Args[2], os.Args[3]; method {
	case "Listen":
		_, err = pm.Listen(network, address)
	case "ListenPerWorker":
		_, err = pm.ListenPerWorker(network, address)
	default:
		_, err = pm.ListenPacket(network, address)
	}
	if err != nil {
		log.Fatal(err)
	}
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		w.Context()
		testprog.Print("up")
		select {}
	})
}

// After a manager's SIGKILL, its workers keep the socket until OrphanTimeout. A
// manager that is started at once waits for them. One that is started while
// another runs fails at once.
func TestListenAfterKill(t *testing.T) {
	for name, args := range map[string][]string{
		"all hosts":  {"Listen", "tcp", ":PORT"},
		"IPv4":       {"Listen", "tcp4", "127.0.0.1:PORT"},
		"IPv6":       {"Listen", "tcp6", "[::1]:PORT"},
		"name":       {"Listen", "tcp", "localhost:PORT"},
		"per worker": {"ListenPerWorker", "tcp", "127.0.0.1:PORT"},
		"datagrams":  {"ListenPacket", "udp", "127.0.0.1:PORT"},
		"unix":       {"Listen", "unix", filepath.Join(testprog.SocketDir(t), "s")},
		"abstract":   {"Listen", "unix", "@" + t.Name() + strconv.Itoa(os.Getpid())},
		"unixgram":   {"ListenPacket", "unixgram", filepath.Join(testprog.SocketDir(t), "g")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args[2] = strings.Replace(args[2], "PORT", freePort(t), 1)
			p := preforktest.Start(t, "keeps", args...)
			p.ExpectN(2, `^up$`)

			second := preforktest.Start(t, "keeps", args...)
			second.Expect(`address already in use`)
			second.Wait()
			for _, line := range second.Lines() {
				if strings.Contains(line, "waiting for their end") {
					t.Errorf("beside a running manager it waits: %s", line)
				}
			}

			p.Signal(syscall.SIGKILL)
			for isOpen := true; isOpen; time.Sleep(time.Millisecond) {
				files, _ := os.ReadDir("/proc/" + strconv.Itoa(p.Cmd.Process.Pid) + "/fd")
				isOpen = len(files) > 0
			}
			third := preforktest.Start(t, "keeps", args...)
			third.ExpectN(2, `^up$`)
			third.Signal(term)
			testprog.ExpectSuccess(t, third)
		})
	}
}

// freePort returns a port that no socket has.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
}
