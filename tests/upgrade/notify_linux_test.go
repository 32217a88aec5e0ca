package upgrade_test

import (
	"context"
	"errors"
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

// notified receives datagrams as systemd does: with the pid of each sender, which
// the kernel adds.
func notified(t *testing.T, path string) (receive func() (text, sender string)) {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	raw, err := conn.SyscallConn()
	if err == nil {
		err = errors.Join(raw.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_PASSCRED, 1)
		}), err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() (text, sender string) {
		t.Helper()
		conn.SetDeadline(time.Now().Add(time.Minute))
		data, oob := make([]byte, 100), make([]byte, 100)
		n, oobn, _, _, err := conn.ReadMsgUnix(data, oob)
		if err != nil {
			t.Fatal(err)
		}
		messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(messages) != 1 {
			t.Fatal(messages, err)
		}
		cred, err := syscall.ParseUnixCredentials(&messages[0])
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(data[:n])), strconv.Itoa(int(cred.Pid))
	}
}

// The variables by which systemd names a process name the successor of an
// upgrade, and the manager below a reaper. systemd is sent the new main process
// before the successor sends anything.
func TestNotifyVariables(t *testing.T) {
	for _, reaper := range []string{"", "reaper"} {
		path := filepath.Join(t.TempDir(), "notify")
		receive := notified(t, path)
		p := preforktest.New(t, "notifying")
		p.Cmd = &exec.Cmd{Path: "/bin/sh", Env: append(p.Cmd.Env, "NOTIFY_SOCKET="+path), Args: []string{"sh", "-c",
			`WATCHDOG_USEC=30000000 WATCHDOG_PID=$$ SYSTEMD_EXEC_PID=$$ exec "$0" "$1"`, p.Cmd.Path, reaper}}
		p.Start()
		if reaper != "" {
			p.Expect(`^manager \d+: named true$`) // the process that becomes the reaper
		}
		upgrades := 2
		if testprog.Long() {
			upgrades = 100
		}
		previous := ""
		for i := range upgrades + 1 {
			pid := p.Expect(`^manager (\d+): named true$`)[1]
			p.Expect(`^worker$`)
			if i > 0 && reaper == "" {
				if got, by := receive(); got != "MAINPID="+pid || by != previous {
					t.Errorf("%q of process %s, want the main process %s of the predecessor %s", got, by, pid, previous)
				}
			}
			for got, by := receive(); got != "READY of "+pid; got, by = receive() {
				if reaper == "" {
					t.Errorf("%q of process %s, want the message of %s", got, by, pid)
				}
			}
			previous = pid
			n, _ := strconv.Atoi(pid)
			if i == upgrades {
				syscall.Kill(n, term)
			} else {
				syscall.Kill(n, syscall.SIGUSR2)
			}
		}
		p.WaitGone()
	}
}
