//go:build linux

package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

// A receiver is the socket of systemd. It notes who has sent each message.
type receiver struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

type message struct {
	pid  int
	text string
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	path := filepath.Join(testprog.SocketDir(t), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); os.Remove(path) })
	raw, err := conn.SyscallConn()
	if err == nil {
		ctlErr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
		err = errors.Join(err, ctlErr)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &receiver{t: t, conn: conn, path: path}
}

// start starts a service with this receiver.
func (r *receiver) start(env ...string) *preforktest.Program {
	r.t.Helper()
	return r.startProgram("unit", env...)
}

func (r *receiver) startProgram(name string, env ...string) *preforktest.Program {
	r.t.Helper()
	p := preforktest.New(r.t, name, filepath.Dir(r.path))
	p.Cmd.Env = append(p.Cmd.Env, append(env, "NOTIFY_SOCKET="+r.path)...)
	return p.Start()
}

func (r *receiver) file(name string) string { return filepath.Join(filepath.Dir(r.path), name) }

func (r *receiver) touch(name string) {
	r.t.Helper()
	if err := os.WriteFile(r.file(name), nil, 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// next returns the next message.
func (r *receiver) next() message {
	r.t.Helper()
	m, err := r.nextWithin(time.Minute)
	if err != nil {
		r.t.Fatalf("no message: %v", err)
	}
	return m
}

func (r *receiver) nextWithin(d time.Duration) (m message, err error) {
	r.conn.SetReadDeadline(time.Now().Add(d))
	text, control := make([]byte, 8192), make([]byte, 256)
	n, cn, _, _, err := r.conn.ReadMsgUnix(text, control)
	if err != nil {
		return m, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:cn])
	if err != nil || len(messages) == 0 {
		return m, fmt.Errorf("no credentials: %v", err)
	}
	cred, err := unix.ParseUnixCredentials(&messages[0])
	if err != nil {
		return m, err
	}
	return message{int(cred.Pid), string(text[:n])}, nil
}

// expect reads the next message, except those that only change the status.
func (r *receiver) expect(pid int, want string) string {
	r.t.Helper()
	for {
		m := r.next()
		if m.text == "WATCHDOG=1" || strings.HasPrefix(m.text, "STATUS=") && !strings.HasPrefix(want, "STATUS=") {
			continue
		}
		if m.pid != pid || !strings.HasPrefix(m.text, want) {
			r.t.Fatalf("%q from %d, want %q from %d", m.text, m.pid, want, pid)
		}
		return m.text
	}
}

// fed reports whether the watchdog is fed within d.
func (r *receiver) fed(d time.Duration) bool {
	r.t.Helper()
	for end := time.Now().Add(d); ; {
		m, err := r.nextWithin(time.Until(end))
		if err != nil {
			return false
		}
		if m.text == "WATCHDOG=1" {
			return true
		}
		if strings.HasPrefix(m.text, "STOPPING=1") {
			r.t.Errorf("%q while the program runs", m.text)
		}
	}
}
