//go:build unix

package launch

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/activation"
	"github.com/prefork-go/prefork/internal/binary"
	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/proc"
)

// variable returns the value of a variable in a process's environment.
func variable(spec proc.Spec, name string) (value string, ok bool) {
	for _, kv := range spec.Env {
		if n, v, _ := strings.Cut(kv, "="); n == name {
			value, ok = v, true
		}
	}
	return value, ok
}

func wantVariables(t *testing.T, spec proc.Spec, want map[string]string) {
	t.Helper()
	for name, value := range want {
		if got, ok := variable(spec, name); got != value || !ok {
			t.Errorf("%s=%q (set: %t), want %q", name, got, ok, value)
		}
	}
}

// open opens the null device until the end of the test.
func open(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func raw(t *testing.T, f *os.File) int {
	t.Helper()
	n, err := fd.Raw(f)
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}

// thisProgram is the file of this test.
func thisProgram(t *testing.T) *binary.Binary {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := binary.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// base is a marker that is valid without sockets and files.
func base() marker.Marker {
	return marker.Marker{Manager: os.Getpid(), Generation: 2, Ordinal: 5, Slot: 1, Stop: syscall.SIGTERM}
}

// The marker of a worker names each descriptor by its number in the worker.
func TestWorker(t *testing.T) {
	t.Setenv("LAUNCH_TEST", "of the manager")
	t.Setenv("LISTEN_FDS", "3")
	extra, blob, cell, socket := open(t), open(t), open(t), open(t)
	for _, test := range []struct {
		name string
		blob bool
		exe  *binary.Binary
	}{{"plain", false, nil}, {"with bytes", true, nil}, {"from disk", true, thisProgram(t)}} {
		t.Run(test.name, func(t *testing.T) {
			plan := Plan{
				Exe: "/program", Args: []string{"program", "-x"}, Dir: "/tmp", Env: []string{"LAUNCH_TEST=of the hook", marker.Env + "=forged"},
				Files: []*os.File{extra}, Depth: 2, Group: true, Binary: test.exe, Marker: base(), Cell: raw(t, cell),
				Sockets: []marker.Socket{
					{FD: raw(t, socket), Network: "tcp", Address: ":80", Slot: marker.Shared},
					{FD: raw(t, socket), Network: "tcp", Address: ":81", Slot: 1},
				},
			}
			if test.blob {
				plan.Blob = raw(t, blob)
			}
			spec, release, err := Worker(plan)
			if err != nil {
				t.Fatal(err)
			}
			defer release()
			if !slices.Equal(spec.Args, plan.Args) || spec.Dir != "/tmp" || !spec.Group || spec.SameGroup || spec.DieWithParent {
				t.Errorf("%+v", spec)
			}
			value, _ := variable(spec, marker.Env)
			m, err := marker.Parse(value)
			if err != nil {
				t.Fatal(err)
			}
			if spec.Control < 3 || m.Control != spec.Control || m.Slot != 1 || m.Ordinal != 5 {
				t.Errorf("control %d, marker %+v", spec.Control, m)
			}
			at := func(name string, number int, f *os.File) {
				t.Helper()
				if spec.Files[number] != uintptr(raw(t, f)) {
					t.Errorf("%s at %d is %d, want %d", name, number, spec.Files[number], raw(t, f))
				}
			}
			at("Spawn.Files[0]", 3, extra)
			at("the cell", m.Cell, cell)
			for _, s := range m.Sockets {
				at(s.Address, s.FD, socket)
			}
			if len(m.Sockets) != 2 || m.Sockets[1].Slot != 1 {
				t.Errorf("sockets %v", m.Sockets)
			}
			if test.blob {
				at("the passed bytes", m.Passed, blob)
			} else if m.Passed != 0 {
				t.Errorf("passed bytes at %d", m.Passed)
			}
			if test.exe == nil && (m.Exe != 0 || spec.Path != "/program") || test.exe != nil && (spec.Files[m.Exe] != uintptr(test.exe.FD()) || spec.Path != test.exe.StartPath(m.Exe)) {
				t.Errorf("program %q at %d", spec.Path, m.Exe)
			}
			if fds := m.FDs(); len(fds)+4 != len(spec.Files) {
				t.Errorf("%d descriptors, of which the marker has %d", len(spec.Files), len(fds))
			}
			wantVariables(t, spec, map[string]string{"LAUNCH_TEST": "of the hook", marker.DepthEnv: "2"})
			if _, ok := variable(spec, "LISTEN_FDS"); ok {
				t.Error("a worker sees the sockets of the manager's environment")
			}
			if plan.Sockets[0].FD != raw(t, socket) || plan.Marker.Sockets != nil {
				t.Error("the plan was changed")
			}
		})
	}
}

func TestSuccessor(t *testing.T) {
	lock, socket, link := open(t), open(t), open(t)
	exe := thisProgram(t)
	for _, reaper := range []*Reaper{nil, {PID: 77, FD: raw(t, link), Guard: 76}} {
		m := base()
		m.Path, m.Slot, m.Generation, m.Ordinal = "/program", 0, 1, 1
		spec, release, err := Successor(Plan{
			Args: []string{"program"}, Depth: 1, SameGroup: true, Binary: exe, Marker: m, Reaper: reaper,
			Env:     []string{"LAUNCH_TEST=a worker's"},
			Sockets: []marker.Socket{{FD: raw(t, socket), Network: "tcp", Address: ":80", Slot: marker.Shared}},
			Passed:  []marker.File{{FD: raw(t, lock), Name: "lock"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		value, _ := variable(spec, marker.SuccessorEnv)
		got, err := marker.ParseSuccessor(value)
		if err != nil {
			t.Fatal(err)
		}
		if !spec.SameGroup || spec.Group || got.Path != "/program" || got.Control != spec.Control || got.Cell != 0 {
			t.Errorf("%+v, marker %+v", spec, got)
		}
		if len(got.Files) != 1 || got.Files[0].Name != "lock" || spec.Files[got.Files[0].FD] != uintptr(raw(t, lock)) {
			t.Errorf("files %v", got.Files)
		}
		if spec.Files[got.Sockets[0].FD] != uintptr(raw(t, socket)) {
			t.Errorf("sockets %v", got.Sockets)
		}
		wantVariables(t, spec, map[string]string{marker.DepthEnv: "1"})
		if _, ok := variable(spec, "LAUNCH_TEST"); ok {
			t.Error("a successor gets the variables of a worker")
		}
		value, ok := variable(spec, marker.ReaperEnv)
		if reaper == nil {
			if ok {
				t.Errorf("%s=%q without a reaper", marker.ReaperEnv, value)
			}
			continue
		}
		r, err := marker.ParseReaper(value)
		if err != nil || r.PID != 77 || r.Guard != 76 || spec.Files[r.FD] != uintptr(raw(t, link)) {
			t.Errorf("%s=%q: %v", marker.ReaperEnv, value, err)
		}
	}
}

func TestCommand(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "server")
	if err := os.WriteFile(program, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	extra, a, b := open(t), open(t), open(t)
	for _, listenFDs := range []bool{false, true} {
		files := []*os.File{extra}
		spec, release, err := Command(Plan{
			Exe: "/manager", Args: []string{"server", "-x"}, Env: []string{"LAUNCH_TEST=of the hook"}, Files: files, Depth: 3, Generation: 9,
			Ports:     []Port{{Name: "127.0.0.1:80", FD: raw(t, a)}, {Name: "/run/sock", FD: raw(t, b)}},
			ListenFDs: listenFDs, Step: listenFDs,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		want := []uintptr{uintptr(raw(t, extra)), uintptr(raw(t, a)), uintptr(raw(t, b))}
		number := 0 // of the control socket
		if listenFDs {
			want, number = append(want, 0), 6
		}
		if !slices.Equal(spec.Files[3:], want) {
			t.Errorf("descriptors %v, want %v", spec.Files[3:], want)
		}
		if !spec.DieWithParent || spec.Control != number || !slices.Equal(spec.Args, []string{"server", "-x"}) {
			t.Errorf("%+v", spec)
		}
		wantVariables(t, spec, map[string]string{
			activation.StarterEnv: "127.0.0.1:80=4;/run/sock=5", activation.StarterGenerationEnv: "9", "LAUNCH_TEST": "of the hook", marker.DepthEnv: "3",
		})
		if listenFDs {
			wantVariables(t, spec, map[string]string{activation.ListenFDsEnv: "3", marker.CommandEnv: strconv.Itoa(os.Getpid()) + ":0:1:6:0:0:" + program})
			if spec.Path != "/manager" {
				t.Errorf("starts %s", spec.Path)
			}
		} else if _, ok := variable(spec, marker.CommandEnv); ok || spec.Path != program {
			t.Errorf("starts %s, %s is set: %t", spec.Path, marker.CommandEnv, ok)
		}
	}
	t.Setenv("NOTIFY_SOCKET", "/run/systemd/notify")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	t.Setenv("WATCHDOG_USEC", "1000")
	t.Setenv(activation.StarterEnv, "of the manager")
	spec, release, err := Command(Plan{Args: []string{"server"}, Env: []string{"WATCHDOG_USEC=of the hook"}})
	if err != nil {
		t.Fatal(err)
	}
	release()
	wantVariables(t, spec, map[string]string{"WATCHDOG_USEC": "of the hook", activation.StarterGenerationEnv: "0"})
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_PID", activation.StarterEnv} {
		if value, ok := variable(spec, name); ok {
			t.Errorf("a Command without sockets gets %s=%s", name, value)
		}
	}
	if _, _, err := Command(Plan{Args: []string{"no such program"}}); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("no such program: %v", err)
	}
}

// A file that was closed cannot be passed, and the error leaves nothing open.
func TestClosedFile(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	plan := Plan{Exe: "/program", Args: []string{"/bin/sh"}, Files: []*os.File{open(t), f}, Marker: base()}
	for name, layOut := range map[string]func(Plan) (proc.Spec, func(), error){"Worker": Worker, "Successor": Successor, "Command": Command} {
		if _, release, err := layOut(plan); err == nil || release != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A file of a Command arrives in blocking mode, whoever has made it non-blocking.
// One of a worker arrives as os/exec passes it.
func TestFilesAreBlocking(t *testing.T) {
	pipe, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pipe.Close(); w.Close() })
	var fds [2]int
	if err := unix.Pipe(fds[:]); err != nil {
		t.Fatal(err)
	}
	unix.SetNonblock(fds[0], true)
	given := os.NewFile(uintptr(fds[0]), "given")
	t.Cleanup(func() { given.Close(); unix.Close(fds[1]) })
	nonBlocking := func(f *os.File) bool {
		flags, err := unix.FcntlInt(uintptr(raw(t, f)), unix.F_GETFL, 0)
		if err != nil {
			t.Fatal(err)
		}
		return flags&unix.O_NONBLOCK != 0
	}
	layOut := func(layOut func(Plan) (proc.Spec, func(), error)) {
		_, release, err := layOut(Plan{Args: []string{"/bin/sh"}, Files: []*os.File{pipe, given}, Marker: base(), Cell: raw(t, open(t))})
		if err != nil {
			t.Fatal(err)
		}
		release()
	}
	layOut(Worker)
	if nonBlocking(pipe) || !nonBlocking(given) {
		t.Errorf("in a worker: a pipe is non-blocking: %t, the other file: %t", nonBlocking(pipe), nonBlocking(given))
	}
	layOut(Command)
	if nonBlocking(pipe) || nonBlocking(given) {
		t.Errorf("in a Command: a pipe is non-blocking: %t, the other file: %t", nonBlocking(pipe), nonBlocking(given))
	}
}

// A socket of Listen keeps the mode that running workers have given it, also if the
// Command gets it by a certain number or as a stream.
func TestSocketsKeepTheirMode(t *testing.T) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	duplicate := func() *os.File {
		n, err := fd.Duplicate(uintptr(s))
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(n), "socket")
		t.Cleanup(func() { f.Close() })
		return f
	}
	plan := Plan{
		Args: []string{"/bin/sh"}, Ports: []Port{{Name: "127.0.0.1:1", FD: s}},
		FilesAt: map[int]*os.File{9: duplicate()}, Streams: [3]*os.File{duplicate()},
	}
	unix.SetNonblock(s, true) // as an event loop does
	_, release, err := Command(plan)
	if err != nil {
		t.Fatal(err)
	}
	release()
	if flags, err := unix.FcntlInt(uintptr(s), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("the socket is blocking, %v", err)
	}
}

// The error of a start names the file, and not the descriptor.
func TestExplain(t *testing.T) {
	exe := thisProgram(t)
	failed := &os.PathError{Op: "fork/exec", Path: "/proc/self/fd/9", Err: syscall.ETXTBSY}
	if err := Explain(failed, nil); err != error(failed) || failed.Path != "/proc/self/fd/9" {
		t.Errorf("without a file: %v", err)
	}
	if err := Explain(failed, exe); !strings.Contains(err.Error(), exe.Path()) || !errors.Is(err, syscall.ETXTBSY) {
		t.Errorf("%v", err)
	}
	if err := Explain(syscall.EAGAIN, exe); err != syscall.EAGAIN {
		t.Errorf("an error without a path: %v", err)
	}
	if err := Explain(nil, exe); err != nil {
		t.Errorf("no error: %v", err)
	}
}

// The bytes are copied, written once, and closed at the end.
func TestPassed(t *testing.T) {
	var none *Passed
	if n, err := none.FD(); n != 0 || err != nil {
		t.Errorf("none: %d, %v", n, err)
	}
	none.Close()
	data := []byte("passed")
	p := NewPassed(data)
	p.Close() // before any worker needs it
	copy(data, "XXXXXX")
	n, err := p.FD()
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := p.FD(); again != n {
		t.Errorf("descriptors %d and %d", n, again)
	}
	if got, err := fd.ReadBlob(n); string(got) != "passed" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	p.Close()
	p.Close()
	if _, err := fd.ReadBlob(n); err == nil {
		t.Error("open after Close")
	}
	if empty, err := NewPassed(nil).FD(); empty == 0 || err != nil {
		t.Errorf("no bytes are passed as none: %d, %v", empty, err)
	} else {
		fd.Close(empty)
	}
}

func TestNewCell(t *testing.T) {
	cell, descriptor, err := NewCell()
	if err != nil {
		t.Fatal(err)
	}
	defer cell.Close()
	fd.Close(descriptor)
	if cell.Read().Busy() {
		t.Error("a new worker is busy")
	}
}

// A marker that is too long for a variable is in a file, at the last descriptor.
func TestLongMarker(t *testing.T) {
	for name, layOut := range map[string]func(Plan) (proc.Spec, func(), error){marker.Env: Worker, marker.SuccessorEnv: Successor} {
		plan := Plan{Marker: base(), Cell: raw(t, open(t))}
		plan.Marker.Name = strings.Repeat("x", 200<<10)
		spec, release, err := layOut(plan)
		if err != nil {
			t.Fatal(err)
		}
		last := len(spec.Files) - 1
		wantVariables(t, spec, map[string]string{name: marker.InFile(os.Getpid(), last)})
		text, err := fd.ReadBlob(int(spec.Files[last]))
		if m, perr := marker.Parse(string(text)); err != nil || perr != nil || m.Name != plan.Marker.Name {
			t.Errorf("%s: name of %d bytes, %v, %v", name, len(m.Name), err, perr)
		}
		release()
	}
	plan := Plan{Args: []string{"true"}, Ports: slices.Repeat([]Port{{Name: "127.0.0.1:8080"}}, 7000)}
	if _, _, err := Command(plan); err == nil || !strings.Contains(err.Error(), "7000 sockets do not fit into SERVER_STARTER_PORT") {
		t.Errorf("a Command with many sockets: %v", err)
	}
}
