//go:build unix

package sockets

import (
	"errors"
	"net"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prefork-go/prefork/internal/activation"
	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/marker"
)

// slots returns the Slot of each socket.
func slots(all []marker.Socket) (slots []int) {
	for _, s := range all {
		slots = append(slots, s.Slot)
	}
	return slots
}

// Shared sockets go to each worker, in the order of the calls.
func TestHandShared(t *testing.T) {
	set, path := newSet(t, Config{}), absent(t)
	listen(t, set.Listen, "tcp", "127.0.0.1:0")
	listen(t, set.ListenPacket, "udp", "127.0.0.1:0")
	listen(t, set.Listen, "unix", path)
	listen(t, set.ListenPerWorker, "unix", path+"2") // falls back to one socket
	want := []string{"tcp 127.0.0.1:0", "udp 127.0.0.1:0", "unix " + path, "unix " + path + "2"}
	for name, all := range map[string][]marker.Socket{
		"slot 0": set.Hand(0), "slot 9": set.Hand(9), "standby": set.Hand(marker.NoSlot), "successor": set.HandAll(),
	} {
		var got []string
		for _, s := range all {
			got = append(got, s.Network+" "+s.Address)
		}
		if !slices.Equal(got, want) || !slices.Equal(slots(all), []int{marker.Shared, marker.Shared, marker.Shared, marker.FellBack}) {
			t.Errorf("%s: %q with slots %v", name, got, slots(all))
		}
	}
	if all := set.HandAll(); all[0].Own || !all[2].Own || !all[3].Own {
		t.Errorf("own files: %v", all)
	}
	infos := set.Info()
	if len(infos) != 4 || infos[0].Address == "127.0.0.1:0" || infos[2].Address != path || infos[3].PerWorker {
		t.Errorf("Info = %v", infos)
	}
	if set.Groups() != 0 || set.Limit(100) != 100 || set.OfSlot(0) != nil || set.Grow(5) != nil {
		t.Error("shared sockets have slots")
	}
	if moves, again := set.Steer(0, nil); moves != nil || again != Never {
		t.Errorf("shared sockets move: %v, again at %v", moves, again)
	}
}

// A Command gets blocking sockets with their names.
func TestHandCommand(t *testing.T) {
	set, path := newSet(t, Config{Command: true}), absent(t)
	tcp := listen(t, set.Listen, "tcp", "127.0.0.1:0")
	listen(t, set.Listen, "unix", path)
	udp, err := set.ListenPacketWith(Options{FD: 9}, "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	var fds []int
	for i, want := range []Port{{Name: tcp.Addr().String()}, {Name: path}, {Name: "u" + udp.LocalAddr().String(), Number: 9}} {
		got := set.HandCommand()[i]
		fds = append(fds, got.FD)
		if got.FD = 0; got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	for n, words := range map[int]string{9: "another socket", 2: "standard stream", -1: "standard stream"} {
		if _, err := set.ListenWith(Options{FD: n}, "tcp", "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), words) || len(set.Info()) != 3 {
			t.Errorf("FD %d: %v, sockets %v", n, err, set.Info())
		}
	}
	if _, err := newSet(t, Config{}).ListenPerWorkerWith(Options{FD: 9}, "tcp", "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "for a Command") {
		t.Errorf("FD for workers: %v", err)
	}
	for _, descriptor := range fds {
		if !fd.Blocks(descriptor) {
			t.Errorf("descriptor %d does not block", descriptor)
		}
	}
	// The modes that running programs have given them outlast an upgrade: in the
	// successor, and here if it fails.
	fd.SetBlocking(fds[0], false)
	modes := func() (all []bool) {
		for _, descriptor := range fds {
			all = append(all, fd.Blocks(descriptor))
		}
		return all
	}
	want := []bool{false, true, true}
	given := set.HandAll()
	for i := range given {
		given[i].FD = copied(t, given[i].FD)
	}
	successor := newSet(t, Config{Successor: true, Command: true, Inherited: NewInherited(given, nil)})
	listen(t, successor.Listen, "tcp", "127.0.0.1:0")
	listen(t, successor.Listen, "unix", path)
	listen(t, successor.ListenPacket, "udp", "127.0.0.1:0")
	if got := modes(); !slices.Equal(got, want) {
		t.Errorf("with a successor: modes %v, want %v", got, want)
	}
	for i, descriptor := range fds {
		fd.SetBlocking(descriptor, !want[i])
	}
	set.RestoreModes()
	if got := modes(); !slices.Equal(got, want) {
		t.Errorf("restored: modes %v, want %v", got, want)
	}
	// A socket that no variable can name is refused, and leaves nothing behind.
	if _, err := set.Listen("unix", path+"=x"); err == nil || exists(path+"=x") || len(set.Info()) != 3 {
		t.Errorf("error %v, the file exists: %t, sockets %v", err, exists(path+"=x"), set.Info())
	}
}

// A worker gets each socket once, by the words of the call.
func TestTakeInWorker(t *testing.T) {
	a, b := bequest(t, "tcp", "127.0.0.1:0"), bequest(t, "tcp", "127.0.0.1:0")
	fellBack := bequest(t, "tcp", "127.0.0.1:0")
	fellBack.Slot = marker.FellBack
	in := NewInherited([]marker.Socket{a, b, fellBack}, nil)
	first := listen(t, in.Listen, "tcp", "127.0.0.1:0")
	second := listen(t, in.Listen, "tcp", "127.0.0.1:0")
	if first.Addr().String() == second.Addr().String() {
		t.Error("two calls return one socket")
	}
	if _, err := in.Listen("tcp", "127.0.0.1:0"); !errors.Is(err, ErrNotInherited) || strings.Count(err.Error(), "(taken)") != 2 {
		t.Errorf("the third call: %v", err)
	}
	if _, err := in.Listen("tcp", "localhost:0"); !errors.Is(err, ErrNotInherited) {
		t.Errorf("other words: %v", err)
	}
	// The manager could not make a socket for each worker.
	listen(t, in.ListenPerWorker, "tcp", "127.0.0.1:0")
	if _, err := in.ListenPacket("udp", "127.0.0.1:0"); !errors.Is(err, ErrNotInherited) {
		t.Errorf("ListenPacket: %v", err)
	}
	if _, err := NewInherited(nil, nil).Listen("tcp", ":0"); !errors.Is(err, ErrNotInherited) || !strings.Contains(err.Error(), "none is left") {
		t.Errorf("no sockets: %v", err)
	}
}

// The sockets of start_server are read once for the process, and a program that
// was started with sockets binds none of its own.
func TestActivation(t *testing.T) {
	given := bequest(t, "tcp", "127.0.0.1:0")
	in := NewInherited(nil, nil)
	if in.ByStarter() {
		t.Error("start_server is seen before ReadActivation")
	}
	port := addressOf(t, given.FD)
	t.Setenv(activation.StarterEnv, port+"="+strconv.Itoa(given.FD))
	t.Setenv(activation.StarterGenerationEnv, "3")
	in.ReadActivation()
	os.Setenv(activation.StarterEnv, "7=1000") // a second read would fail
	in.ReadActivation()
	if !in.ByStarter() {
		t.Error("start_server is not seen")
	}
	one, two := newSet(t, Config{Inherited: in}), newSet(t, Config{Inherited: in})
	ln := listen(t, one.ListenPerWorker, "tcp", port) // one socket, since it was given
	if ln.Addr().String() != port || one.Groups() != 0 {
		t.Errorf("listens on %v in %d groups", ln.Addr(), one.Groups())
	}
	if os.Getenv(activation.StarterEnv) != "" {
		t.Error("the variable is left after its socket was taken")
	}
	for _, address := range []string{port, "127.0.0.1:0"} {
		if _, err := two.Listen("tcp", address); !errors.Is(err, ErrNotInherited) || !strings.Contains(err.Error(), "none is left") {
			t.Errorf("another Manager gets %v", err)
		}
	}
}

// start_server can start a program without sockets, which then binds its own.
func TestStarterWithoutSockets(t *testing.T) {
	t.Setenv(activation.StarterEnv, "")
	t.Setenv(activation.StarterGenerationEnv, "1")
	in := NewInherited(nil, nil)
	in.ReadActivation()
	if !in.ByStarter() || in.isActivated() {
		t.Errorf("by start_server %t, with sockets %t", in.ByStarter(), in.isActivated())
	}
	listen(t, newSet(t, Config{Inherited: in}).Listen, "tcp", "127.0.0.1:0")
}

func addressOf(t *testing.T, descriptor int) string {
	t.Helper()
	copied, err := fd.Duplicate(uintptr(descriptor))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := wrapFD(copied, "", net.FileListener)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// An Idle has the requested address and returns nothing until it is closed.
func TestIdle(t *testing.T) {
	for _, test := range []struct {
		network, address, want string
		addr                   net.Addr
	}{
		{"tcp", "127.0.0.1:80", "127.0.0.1:80", &net.TCPAddr{}},
		{"tcp", ":80", ":80", &net.TCPAddr{}},
		{"tcp6", "[::1%lo]:80", "[::1%lo]:80", &net.TCPAddr{}},
		{"udp", "127.0.0.1:53", "127.0.0.1:53", &net.UDPAddr{}},
		{"unix", "/run/sock", "/run/sock", &net.UnixAddr{}},
		{"unixgram", "/run/sock", "/run/sock", &net.UnixAddr{}},
	} {
		s := NewIdle(test.network, test.address)
		if got := s.Addr(); got.String() != test.want || reflect.TypeOf(got) != reflect.TypeOf(test.addr) || s.LocalAddr() != got {
			t.Errorf("%s %s: %T %v", test.network, test.address, got, got)
		}
		done := make(chan error, 2)
		go func() { _, err := s.Accept(); done <- err }()
		go func() { _, _, err := s.ReadFrom(nil); done <- err }()
		if _, err := s.WriteTo(nil, nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("WriteTo: %v", err)
		}
		select {
		case err := <-done:
			t.Errorf("returned before Close: %v", err)
		default:
		}
		s.Close()
		s.Close()
		for range 2 {
			if err := <-done; err != net.ErrClosed {
				t.Errorf("after Close: %v", err)
			}
		}
	}
}
