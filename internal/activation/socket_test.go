//go:build unix

package activation

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// socketOf returns a new descriptor of a listener or a connection. The descriptor
// can be inherited.
func socketOf(t *testing.T, c interface{ File() (*os.File, error) }) int {
	t.Helper()
	f, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, firstFD)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func listenTCP(t *testing.T) *net.TCPListener {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.(*net.TCPListener)
}

// Sockets makes the sockets close-on-exec and reads their addresses. A connection
// is not a socket to serve on.
func TestSockets(t *testing.T) {
	ln := listenTCP(t)
	conn, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	listener, connection := socketOf(t, ln), socketOf(t, conn.(*net.TCPConn))
	t.Setenv(StarterEnv, fmt.Sprintf("8080=%d;8081=%d", listener, connection))
	all, err := Sockets()
	if err != nil || len(all) != 2 {
		t.Fatalf("%v, %v", all, err)
	}
	if s := all[0]; s.FD != listener || s.Network != "tcp4" || s.Addr.String() != ln.Addr().String() || s.Name != "8080" {
		t.Errorf("listener: %+v", s)
	}
	if s := all[1]; s.FD != connection || s.Network != "" || !strings.Contains(s.String(), "not a socket to serve on") {
		t.Errorf("connection: %+v", s)
	}
	for _, s := range all {
		if flags, err := unix.FcntlInt(uintptr(s.FD), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d: flags %#x, %v", s.FD, flags, err)
		}
	}
	t.Setenv(StarterEnv, "8080="+strconv.Itoa(maxFD))
	if all, err := Sockets(); err == nil || !strings.Contains(err.Error(), "is not open") {
		t.Errorf("closed descriptor: %v, %v", all, err)
	}
	ClearEnv()
	if all, err := Sockets(); all != nil || err != nil {
		t.Errorf("after ClearEnv: %v, %v", all, err)
	}
}

// StarterName returns names in the form of start_server.
func TestStarterName(t *testing.T) {
	ln := listenTCP(t)
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	dir, err := os.MkdirTemp("", "name") // a short path
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	local, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	for _, tt := range []struct {
		fd         int
		path, want string
	}{
		{socketOf(t, ln), "", ln.Addr().String()},
		{socketOf(t, pc.(*net.UDPConn)), "", "u" + pc.LocalAddr().String()},
		{socketOf(t, local.(*net.UnixListener)), "", path},
		{socketOf(t, local.(*net.UnixListener)), "/absolute", "/absolute"},
	} {
		if got, err := StarterName(tt.fd, tt.path); got != tt.want || err != nil {
			t.Errorf("%q, %v; want %q", got, err, tt.want)
		}
	}
	if name, err := StarterName(socketOf(t, local.(*net.UnixListener)), "/a;b"); err == nil {
		t.Errorf("a path with a separator: %q", name)
	}
}

// Readdress changes LISTEN_PID only if it names the process that this one
// replaces.
func TestReaddress(t *testing.T) {
	for value, want := range map[string]string{"4711": strconv.Itoa(os.Getpid()), "4712": "4712", "": ""} {
		t.Setenv(ListenPIDEnv, value)
		Readdress(4711)
		if got := os.Getenv(ListenPIDEnv); got != want {
			t.Errorf("%q becomes %q, want %q", value, got, want)
		}
	}
}
