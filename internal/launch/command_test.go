//go:build unix

package launch

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/activation"
	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/proc"
)

// none stands for a descriptor that the Command does not get.
const none = int(^uint(0) >> 1)

// The sockets of a Command get the lowest numbers that nothing else must have.
func TestNumbersOfACommand(t *testing.T) {
	for _, test := range []struct {
		name      string
		files     int
		ready     int
		at        []int // FilesAt
		pinned    []int // numbers of further sockets
		sockets   int
		listenFDs bool
		want      []int  // from 3 up: 100 file, 200 socket, 300 control, 400 FilesAt, 500 pinned
		ports     string // in SERVER_STARTER_PORT
		err       string
	}{
		{name: "nothing"},
		{name: "sockets", files: 1, sockets: 2, want: []int{100, 200, 200}, ports: "a=4;a=5"},
		{name: "ready at 3", ready: 3, sockets: 2, want: []int{300, 200, 200}, ports: "a=4;a=5"},
		{name: "ready among them", ready: 4, sockets: 2, want: []int{200, 300, 200}, ports: "a=3;a=5"},
		{name: "ready behind them", ready: 7, sockets: 2, want: []int{200, 200, none, none, 300}, ports: "a=3;a=4"},
		{name: "ready alone", ready: 5, want: []int{none, none, 300}},
		{name: "ready at a file", files: 2, ready: 4, err: "Spawn.Files, which have 3 to 4"},
		{name: "LISTEN_FDS", ready: 6, files: 1, sockets: 2, listenFDs: true, want: []int{100, 200, 200, 300}, ports: "a=4;a=5"},
		{name: "among LISTEN_FDS", ready: 5, files: 1, sockets: 2, listenFDs: true, err: "LISTEN_FDS, which have 3 to 5"},
		{name: "files at numbers", at: []int{4, 8}, ready: 3, files: 0, sockets: 2, want: []int{300, 400, 200, 200, none, 400}, ports: "a=5;a=6"},
		{name: "a file at a file", at: []int{3}, files: 1, err: "Spawn.Files, which have 3 to 3"},
		{name: "a file at a stream", at: []int{1}, err: "use Spawn.Stdin"},
		{name: "a file below", at: []int{-1}, err: "negative"},
		{name: "a file at the ready number", at: []int{5}, ready: 5, err: "descriptor 5 is both one of Readiness.FD and one of Spawn.FilesAt"},
		{name: "a file among LISTEN_FDS", at: []int{3}, sockets: 1, listenFDs: true, err: "LISTEN_FDS, which have 3 to 3"},
		{name: "a file behind LISTEN_FDS", at: []int{6}, files: 1, sockets: 2, listenFDs: true, want: []int{100, 200, 200, 400}, ports: "a=4;a=5"},
		{name: "pinned", pinned: []int{4, 7}, sockets: 2, want: []int{200, 500, 200, none, 500}, ports: "a=3;a=5;p=4;p=7"},
		{name: "pinned alone, behind a file", files: 1, pinned: []int{4}, want: []int{100, 500}, ports: "p=4"},
		{name: "pinned beside others", at: []int{3}, pinned: []int{5}, ready: 4, sockets: 1, want: []int{400, 300, 500, 200}, ports: "a=6;p=5"},
		{name: "pinned at the ready number", pinned: []int{5}, ready: 5, err: "5 is both one of ListenConfig.FD and one of Readiness.FD"},
		{name: "pinned at a file of a number", pinned: []int{5}, at: []int{5}, err: "5 is both one of ListenConfig.FD and one of Spawn.FilesAt"},
		{name: "pinned at a file", pinned: []int{3}, files: 1, err: "3 of ListenConfig.FD is one of Spawn.Files"},
		{name: "pinned and LISTEN_FDS", pinned: []int{9}, listenFDs: true, err: "cannot be combined with ListenFDs"},
		{name: "pinned too high", pinned: []int{1 << 30}, err: "of ListenConfig.FD is not below RLIMIT_NOFILE"},
		{name: "too high", ready: 1 << 30, err: "not below RLIMIT_NOFILE"},
	} {
		t.Run(test.name, func(t *testing.T) {
			file, socket, at, pinned := open(t), open(t), open(t), open(t)
			plan := Plan{
				Args: []string{"/bin/sh"}, Files: slices.Repeat([]*os.File{file}, test.files), ReadyFD: test.ready, ListenFDs: test.listenFDs,
				Ports: slices.Repeat([]Port{{Name: "a", FD: raw(t, socket)}}, test.sockets),
			}
			for _, n := range test.pinned {
				plan.Ports = append(plan.Ports, Port{"p", raw(t, pinned), n})
			}
			plan.FilesAt = make(map[int]*os.File)
			for _, n := range test.at {
				plan.FilesAt[n] = at
			}
			spec, release, err := Command(plan)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("error %v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer release()
			var got []int
			for n, descriptor := range spec.Files[3:] {
				switch {
				case spec.Control == n+3:
					got = append(got, 300)
				case descriptor == closed:
					got = append(got, none)
				case descriptor == uintptr(raw(t, file)):
					got = append(got, 100)
				case descriptor == uintptr(raw(t, socket)):
					got = append(got, 200)
				case descriptor == uintptr(raw(t, at)):
					got = append(got, 400)
				case descriptor == uintptr(raw(t, pinned)):
					got = append(got, 500)
				}
			}
			if !slices.Equal(got, test.want) || spec.Control != test.ready {
				t.Errorf("%v, control %d; want %v", got, spec.Control, test.want)
			}
			ports, _ := variable(spec, activation.StarterEnv)
			if ports != test.ports {
				t.Errorf("%s=%s, want %s", activation.StarterEnv, ports, test.ports)
			}
			if n, _ := variable(spec, activation.ListenFDsEnv); test.listenFDs && n != "3" {
				t.Errorf("%s=%s", activation.ListenFDsEnv, n)
			}
		})
	}
}

// A file with a slash is looked up in the directory in which the Command starts,
// and keeps its name.
func TestDirOfACommand(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "service/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"run": "#!/bin/sh\n", "bin/lost": "#!/no/such/sh\n", "plain": "exit 0\n"} {
		if err := os.WriteFile(filepath.Join(root, "service", name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "service/data"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Chdir(root)
	dir := filepath.Join(root, "service")
	for _, test := range []struct {
		name       string
		plan       Plan
		path, dir  string
		err, words string
	}{
		{name: "relative", plan: Plan{Args: []string{"./run"}, Dir: dir}, path: "./run", dir: dir},
		{name: "relative directory", plan: Plan{Args: []string{"./run"}, Dir: "service"}, path: "./run", dir: dir},
		{name: "absolute", plan: Plan{Args: []string{"/bin/sh"}, Dir: dir}, path: "/bin/sh", dir: dir},
		{name: "in PATH", plan: Plan{Args: []string{"run"}, Dir: dir}, err: "not found"},
		{name: "not there", plan: Plan{Args: []string{"./run"}}, err: "no such file"},
		{name: "another file", plan: Plan{Args: []string{"-run"}, Program: "./run", Dir: dir}, path: "./run", dir: dir},
		{name: "below the root", plan: Plan{Args: []string{"./run"}, Root: root, Dir: "/service"}, path: "/service/run", dir: "/service"},
		{name: "relative below the root", plan: Plan{Args: []string{"./service/run"}, Root: root}, path: "/service/run", dir: "/"},
		{name: "by the first step", plan: Plan{Args: []string{"./run"}, Dir: dir, Step: true}, dir: dir},
		{name: "a directory", plan: Plan{Args: []string{"./bin"}, Dir: dir}, err: "is a directory: name the program in it"},
		{name: "not executable", plan: Plan{Args: []string{"./data"}, Dir: dir}, err: "its mode 0644 has no x: chmod +x it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			spec, release, err := Command(test.plan)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("error %v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			release()
			if spec.Path != test.path || spec.Dir != test.dir || !slices.Equal(spec.Args, test.plan.Args) {
				t.Errorf("starts %q %q in %q, want %q in %q", spec.Path, spec.Args, spec.Dir, test.path, test.dir)
			}
			wantVariables(t, spec, map[string]string{"PWD": test.dir})
		})
	}
	busy := &os.PathError{Op: "fork/exec", Path: "bin/lost", Err: syscall.ENOENT}
	if err := ExplainCommand("", dir, busy); !strings.Contains(err.Error(), "interpreter /no/such/sh") {
		t.Errorf("explained without the directory: %v", err)
	}
}

// A process gets its own streams, in blocking mode if it is a Command, and the
// environment without the variables of Unset.
func TestStreamsAndEnvironment(t *testing.T) {
	t.Setenv("LAUNCH_TEST", "of the manager")
	t.Setenv("LAUNCH_KEPT", "kept")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	unset := []string{"LAUNCH_TEST", activation.StarterGenerationEnv, marker.DepthEnv}
	plan := Plan{
		Args: []string{"/bin/sh"}, Marker: base(), Cell: raw(t, open(t)), Streams: [3]*os.File{r, nil, w}, Unset: unset, Depth: 1,
		ListenStarter: true,
	}
	for name, layOut := range map[string]func(Plan) (proc.Spec, func(), error){"Worker": Worker, "Command": Command} {
		for _, f := range []*os.File{r, w} {
			fd.SetBlocking(raw(t, f), false)
		}
		spec, release, err := layOut(plan)
		if err != nil {
			t.Fatal(err)
		}
		release()
		if want := []uintptr{uintptr(raw(t, r)), 1, uintptr(raw(t, w))}; !slices.Equal(spec.Files[:3], want) {
			t.Errorf("%s: streams %v, want %v", name, spec.Files[:3], want)
		}
		for _, f := range []*os.File{r, w} {
			if flags, err := unix.FcntlInt(uintptr(raw(t, f)), unix.F_GETFL, 0); name == "Command" && (flags&unix.O_NONBLOCK != 0 || err != nil) {
				t.Errorf("a stream of a Command is non-blocking, %v", err)
			}
		}
		for _, name := range unset[:2] {
			if value, ok := variable(spec, name); ok {
				t.Errorf("%s=%s", name, value)
			}
		}
		wantVariables(t, spec, map[string]string{"LAUNCH_KEPT": "kept", marker.DepthEnv: "1"})
		if value, ok := variable(spec, activation.StarterEnv); name == "Command" && (value != "" || !ok) {
			t.Errorf("%s=%q, set: %t", activation.StarterEnv, value, ok)
		}
	}
	plan.Env = []string{"LAUNCH_TEST=of the hook"}
	spec, release, err := Command(plan)
	if err != nil {
		t.Fatal(err)
	}
	release()
	wantVariables(t, spec, map[string]string{"LAUNCH_TEST": "of the hook"})
	closed := open(t)
	closed.Close()
	for _, plan := range []Plan{{Streams: [3]*os.File{nil, closed}}, {FilesAt: map[int]*os.File{9: closed}}, {FilesAt: map[int]*os.File{9: nil}}} {
		plan.Args = []string{"/bin/sh"}
		if _, release, err := Command(plan); (err == nil || release != nil) && plan.FilesAt[9] == closed {
			t.Errorf("a closed file: %v", err)
		} else if err == nil {
			release()
		}
	}
}
