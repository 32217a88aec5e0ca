package upgrade_test

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
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

func init() { preforktest.Register("notifying", notifying) }

// notifying is a service with a watchdog: it removes the variables of systemd
// that it has read, as programs do, and reports to it when it has taken over.
func notifying() {
	if !prefork.IsWorker() {
		socket, owner := os.Getenv("NOTIFY_SOCKET"), os.Getenv("WATCHDOG_PID") == strconv.Itoa(os.Getpid()) && os.Getenv("SYSTEMD_EXEC_PID") == os.Getenv("WATCHDOG_PID")
		testprog.Print("manager %d: named %t", os.Getpid(), owner)
		for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"} {
			os.Unsetenv(name)
		}
		go func() {
			<-prefork.TookOver()
			if conn, err := net.Dial("unixgram", socket); err == nil {
				io.WriteString(conn, "READY of "+strconv.Itoa(os.Getpid()))
			}
		}()
	}
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers: 1, Reaper: os.Args[1] == "reaper",
		TrapSignals: prefork.Signals{term: {Signal: term}, syscall.SIGUSR2: {Upgrade: true}},
	})
	err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		testprog.Print("worker")
		<-w.Context().Done()
		return nil
	})
	testprog.Print("ended %v", err)
}

// The variables by which systemd names a process name the successor of an
// upgrade, and the manager below a reaper. systemd is sent the new main process
// before the successor sends anything.
func TestNotifyVariables(t *testing.T) {
	for _, reaper := range []string{"", "reaper"} {
		path := filepath.Join(t.TempDir(), "notify")
		conn, err := net.ListenPacket("unixgram", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(time.Minute))
		receive := func() string {
			b := make([]byte, 100)
			n, _, err := conn.ReadFrom(b)
			if err != nil {
				t.Fatal(err)
			}
			return strings.TrimSpace(string(b[:n]))
		}
		p := preforktest.New(t, "notifying")
		p.Cmd = &exec.Cmd{Path: "/bin/sh", Env: append(p.Cmd.Env, "NOTIFY_SOCKET="+path), Args: []string{"sh", "-c",
			`WATCHDOG_USEC=30000000 WATCHDOG_PID=$$ SYSTEMD_EXEC_PID=$$ exec "$0" "$1"`, p.Cmd.Path, reaper}}
		p.Start()
		if reaper != "" {
			p.Expect(`^manager \d+: named true$`) // the process that becomes the reaper
		}
		for i := range 3 {
			pid := p.Expect(`^manager (\d+): named true$`)[1]
			p.Expect(`^worker$`)
			if i > 0 && reaper == "" {
				if got := receive(); got != "MAINPID="+pid {
					t.Errorf("%q, want the main process %s", got, pid)
				}
			}
			for got := receive(); got != "READY of "+pid; got = receive() {
				if reaper == "" {
					t.Errorf("%q, want the message of %s", got, pid)
				}
			}
			n, _ := strconv.Atoi(pid)
			if i == 2 {
				syscall.Kill(n, term)
			} else {
				syscall.Kill(n, syscall.SIGUSR2)
			}
		}
		p.WaitGone()
	}
}
