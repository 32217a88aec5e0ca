//go:build unix

package upgrade_test

import (
	"context"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("socketFile", socketFile) }

// socketFile is a program that answers on a unix socket with the pid of its
// manager, and upgrades itself on SIGUSR2.
func socketFile() {
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 1, TrapSignals: prefork.Signals{term: {Signal: term}, syscall.SIGUSR2: {Upgrade: true}}})
	ln, err := pm.Listen("unix", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() {
		testprog.Print("manager %d", os.Getpid())
		go func() {
			<-prefork.TookOver()
			testprog.Print("took over %d", os.Getpid())
		}()
	}
	pm.Run(context.Background(), func(w *prefork.Worker) error {
		context.AfterFunc(w.Context(), func() { ln.Close() })
		for {
			conn, err := ln.Accept()
			if err != nil {
				return nil
			}
			io.WriteString(conn, strconv.Itoa(w.ManagerPID()))
			conn.Close()
		}
	})
	testprog.Print("ended %d", os.Getpid())
}

// The file of a unix socket belongs to the successor after an upgrade: the old
// manager leaves it in place, and the successor removes it at its end.
func TestUpgradeWithUnixSocket(t *testing.T) {
	path := filepath.Join(testprog.SocketDir(t), "s")
	p := preforktest.Start(t, "socketFile", path)
	manager := p.Expect(`^manager (\d+)$`)[1]
	p.ExpectAll(`^took over`, `worker ready`)
	for range 2 { // the second successor inherits from the first
		pid, _ := strconv.Atoi(manager)
		syscall.Kill(pid, syscall.SIGUSR2)
		successor := p.Expect(`^manager (\d+)$`)[1]
		p.ExpectAll(`^took over `+successor+`$`, `^ended `+manager+`$`)
		if got := answerOf(t, path); got != successor {
			t.Errorf("manager %s answers, want %s", got, successor)
		}
		manager = successor
	}
	pid, _ := strconv.Atoi(manager)
	syscall.Kill(pid, term)
	p.WaitGone()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the successor leaves its socket file behind: %v", err)
	}
}

func answerOf(t *testing.T, path string) string {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	data, err := io.ReadAll(conn)
	if err != nil {
		t.Error(err)
	}
	return string(data)
}
