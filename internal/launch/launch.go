// Package launch lays out a process: its descriptors, its marker and its
// environment.
package launch

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/prefork-go/prefork/internal/activation"
	"github.com/prefork-go/prefork/internal/binary"
	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/proc"
)

// Plan describes a process to start. Worker, Successor and Command each use the
// fields that concern them.
type Plan struct {
	Exe     string   // starts the program of this process again
	Args    []string // of this process, or the Command
	Dir     string   // the working directory; "" means that of this process
	Env     []string // variables beside those of this process
	Unset   []string // names of variables of this process that the new one does not get
	Start   []string // a successor's variables, if this process has removed them
	Files   []*os.File
	Streams [3]*os.File // nil for that of this process
	Attr    *syscall.SysProcAttr
	Depth   int // managers above the new process

	Started []fd.Started // the descriptors with which this process was started

	Group     bool // see proc.Spec
	SameGroup bool

	Binary  *binary.Binary // the program's file; nil for that of this process
	Marker  marker.Marker  // all but the descriptors
	Blob    int            // the descriptor with the passed bytes; 0 for none
	Cell    int            // the descriptor of the worker's cell
	Sockets []marker.Socket
	Passed  []marker.File // for a successor
	Reaper  *Reaper       // above a successor; nil for none

	Ports         []Port           // of a Command: its sockets
	Program       string           // the Command's file; "" for the one that Args names
	FilesAt       map[int]*os.File // of a Command: by number
	ReadyFD       int              // of a Command: where it reports that it is ready; 0 for nowhere
	Generation    int
	ListenFDs     bool
	ListenStarter bool   // SERVER_STARTER_PORT, also without sockets
	Root          string // its root directory; "" for that of this process
	Step          bool   // this program is started first; ListenFDs needs it
	Confine       string // with Step: a plan of package resources to apply first
}

// Port is a socket of a Command.
type Port struct {
	Name   string // in SERVER_STARTER_PORT
	FD     int
	Number int // of the descriptor in the Command; 0 for any
}

// Reaper is the reaper above this process, and its guard, if it has one.
type Reaper struct{ PID, FD, Guard int }

// spec returns the part that all kinds of processes have in common.
func (p *Plan) spec() (spec proc.Spec, release func(), err error) {
	spec = proc.Spec{Path: p.Exe, Args: p.Args, Dir: p.Dir, Attr: p.Attr, Group: p.Group, SameGroup: p.SameGroup}
	if release, err = p.addStreams(&spec); err != nil {
		return spec, nil, err
	}
	for _, f := range p.Files {
		if _, err := fd.Raw(f); err != nil { // it is closed
			release()
			return spec, nil, err
		}
		// As os/exec does: Fd makes the file blocking, and a program that does not
		// know of this library expects that.
		spec.Files = append(spec.Files, f.Fd())
	}
	closeNull := release
	return spec, func() {
		closeNull()
		runtime.KeepAlive(p)
	}, nil
}

// Worker lays out a worker. The caller must call release after it has started
// the process.
func Worker(p Plan) (spec proc.Spec, release func(), err error) {
	if spec, release, err = p.spec(); err != nil {
		return spec, nil, err
	}
	p.reserve(&spec)
	p.Marker.Cell = p.add(&spec, p.Cell)
	p.layOut(&spec)
	value, release, err := p.value(&spec, release)
	if err != nil {
		return spec, nil, err
	}
	spec.Env = marker.ChildEnv(p.environ(), p.Env, depth(p.Depth), marker.Env+"="+value)
	return spec, release, nil
}

// Successor lays out a manager that takes over from this one. It runs in the
// process group of this process, below the same reaper.
func Successor(p Plan) (spec proc.Spec, release func(), err error) {
	if spec, release, err = p.spec(); err != nil {
		return spec, nil, err
	}
	spec.KeepMask = true // it is a manager, as this process is
	p.reserve(&spec)
	p.layOut(&spec)
	for _, f := range p.Passed {
		f.FD = p.add(&spec, f.FD)
		p.Marker.Files = append(p.Marker.Files, f)
	}
	var own []string
	if p.Reaper != nil {
		own = append(own, marker.ReaperEnv+"="+marker.Reaper{PID: p.Reaper.PID, FD: p.add(&spec, p.Reaper.FD), Guard: p.Reaper.Guard}.String())
	}
	closeNull := release
	if release, err = p.addStarted(&spec, closeNull); err != nil {
		closeNull()
		return spec, nil, err
	}
	value, release, err := p.value(&spec, release)
	if err != nil {
		return spec, nil, err
	}
	own = append(own, depth(p.Depth), marker.SuccessorEnv+"="+value)
	spec.Env = marker.ChildEnv(activation.RestoreNotify(p.environ(), p.Start), nil, own...)
	return spec, release, nil
}

// Command lays out a program that does not know of this library. It gets its
// sockets as start_server passes them, and with ListenFDs also as systemd does.
// With Step, this program is started first: it applies the resources that only a
// process itself can set, and knows its pid for LISTEN_PID. It also enters the
// root directory and becomes the user of the Command: it may not exist in the
// one, and the other may not run it. If it fails, it sends a wire.NotStarted to its
// control socket, which ends with its success unless that is ReadyFD.
func Command(p Plan) (spec proc.Spec, release func(), err error) {
	if p.Root == "" && p.Dir != "" {
		if p.Dir, err = filepath.Abs(p.Dir); err != nil { // PWD needs it
			return spec, nil, err
		}
	}
	path, err := LookPath(p.Root, p.Dir, p.file())
	if err != nil {
		return spec, nil, explainLookup(p.Root, p.Dir, err)
	}
	if p.Step {
		if err := p.checkFirstStep(); err != nil {
			return spec, nil, err
		}
	}
	if p.Root != "" {
		p.Dir = filepath.Join("/", p.Dir) // otherwise it would be outside
	}
	if spec, release, err = p.spec(); err != nil {
		return spec, nil, err
	}
	if err := p.blockFiles(); err != nil {
		release()
		return spec, nil, err
	}
	spec.Path, spec.DieWithParent = path, true
	numbers, err := p.layOutCommand(&spec)
	if err != nil {
		release()
		return spec, nil, err
	}
	p.Started = nil // its numbers are those of the Command
	env := []string{activation.StarterGenerationEnv + "=" + strconv.Itoa(p.Generation)}
	if len(p.Ports) > 0 || p.ListenStarter {
		ports := activation.StarterEnv + "=" + strings.Join(p.portList(numbers), ";")
		if len(ports) >= maxVariable {
			release()
			return spec, nil, fmt.Errorf("%d sockets do not fit into %s, which may have %d bytes: a Command needs fewer", len(p.Ports), activation.StarterEnv, maxVariable)
		}
		env = append(env, ports)
	}
	own := []string{depth(p.Depth)}
	if p.ListenFDs {
		// The number counts from descriptor 3 and includes Spawn.Files.
		env = append(env, activation.ListenFDsEnv+"="+strconv.Itoa(len(p.Files)+len(numbers)))
	}
	if p.Step {
		step := marker.Command{Manager: os.Getpid(), Listen: p.ListenFDs, Path: path, Keep: spec.Control != 0}
		if !step.Keep {
			spec.Control = p.add(&spec, 0)
		}
		step.Report = spec.Control
		if p.Root != "" { // the step enters the root first
			step.Dir, spec.Dir = spec.Dir, ""
		}
		if p.Confine != "" { // in a file: it may name many groups
			descriptor, err := fd.NewBlob([]byte(p.Confine))
			if err != nil {
				release()
				return spec, nil, err
			}
			closeOthers := release
			release = func() {
				closeOthers()
				fd.Close(descriptor)
			}
			step.Plan = p.add(&spec, descriptor)
		}
		own = append(own, marker.CommandEnv+"="+step.String())
		spec.Path = p.Exe
	}
	spec.Env = marker.ChildEnv(activation.WithoutNotify(p.environ()), append(p.without(env), p.Env...), own...)
	return spec, release, nil
}

// file returns the name of a Command's file.
func (p *Plan) file() string { return cmp.Or(p.Program, p.Args[0]) }

// environ returns the environment of this process. If the new one starts in
// another directory, PWD names that, so that os.Getwd returns the name and not
// what its links lead to.
func (p *Plan) environ() []string {
	env, dir := os.Environ(), p.Dir
	if p.Root != "" && dir == "" {
		dir = "/"
	}
	if dir != "" {
		env = append(env, "PWD="+dir)
	}
	return p.without(env)
}

// without removes the variables of Unset.
func (p *Plan) without(env []string) []string {
	if len(p.Unset) == 0 {
		return env
	}
	return slices.DeleteFunc(env, func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains(p.Unset, name)
	})
}

// maxVariable is the length of a variable that Linux refuses, with its name and
// the final 0.
const maxVariable = 128<<10 - 1

func depth(n int) string { return marker.DepthEnv + "=" + strconv.Itoa(n) }

// closed stands for a descriptor that the new process does not get.
const closed = ^uintptr(0)

// maxReserved bounds the numbers above which the library's own descriptors are
// laid out: each number below costs time at every start.
const maxReserved = 1 << 10

// reserve leaves the numbers free that this process was started with. A program
// that expects a file of its own at such a number, and closes it or writes to it,
// would otherwise meet a socket of this library. Its own descriptors come above
// these numbers, if there is room below RLIMIT_NOFILE: package syscall needs a
// second number for each while it starts the process.
func (p *Plan) reserve(spec *proc.Spec) {
	own := len(p.Sockets) + len(p.Passed) + 6 // control, cell, blob, program, reaper, marker
	bound := min(maxReserved, fd.Limit()-2*own)
	for _, s := range p.Started {
		for s.FD < bound && len(spec.Files) <= s.FD {
			spec.Files = append(spec.Files, closed)
		}
	}
}

// add appends a descriptor, and returns its number in the new process.
func (p *Plan) add(spec *proc.Spec, descriptor int) int {
	for slices.ContainsFunc(p.Started, func(s fd.Started) bool { return s.FD == len(spec.Files) }) {
		spec.Files = append(spec.Files, closed)
	}
	spec.Files = append(spec.Files, uintptr(descriptor))
	return len(spec.Files) - 1
}

// addStarted gives a successor the descriptors with which this process was
// started, at the same numbers. For those that the program has closed it gets the
// null device, as for streams: their numbers must not fall to a file of the Go
// runtime, which the program would then close.
func (p *Plan) addStarted(spec *proc.Spec, release func()) (func(), error) {
	var null *os.File
	for _, s := range p.Started {
		for len(spec.Files) <= s.FD {
			spec.Files = append(spec.Files, closed)
		}
		if s.IsOpen() {
			spec.Files[s.FD] = uintptr(s.FD)
			continue
		}
		if null == nil {
			var err error
			if null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
				return nil, err
			}
		}
		raw, err := fd.Raw(null)
		if err != nil {
			null.Close()
			return nil, err
		}
		spec.Files[s.FD] = raw
	}
	return func() {
		null.Close() // a no-op for nil
		release()
	}, nil
}

// layOut lays out the descriptors of a process that runs this library, and notes
// in its marker where they are: the control socket, the passed bytes, the
// sockets and the program's file.
func (p *Plan) layOut(spec *proc.Spec) {
	spec.Control = p.add(spec, 0)
	p.Marker.Control = spec.Control
	if p.Blob != 0 {
		p.Marker.Passed = p.add(spec, p.Blob)
	}
	for _, s := range p.Sockets {
		s.FD = p.add(spec, s.FD)
		p.Marker.Sockets = append(p.Marker.Sockets, s)
	}
	if p.Binary != nil {
		p.Marker.Exe = p.add(spec, p.Binary.FD())
		spec.Path = p.Binary.StartPath(p.Marker.Exe)
	}
}

// value returns the marker for the environment. A long one is in a file.
func (p *Plan) value(spec *proc.Spec, release func()) (string, func(), error) {
	value := p.Marker.String()
	if len(value) <= marker.MaxValue {
		return value, release, nil
	}
	descriptor, err := fd.NewBlob([]byte(value))
	if err != nil {
		release()
		return "", nil, err
	}
	return marker.InFile(p.Marker.Manager, p.add(spec, descriptor)), func() {
		release()
		fd.Close(descriptor)
	}, nil
}

// addStreams gives a process the standard streams of the plan, or those of this
// process; the null device for those that are closed.
func (p *Plan) addStreams(spec *proc.Spec) (release func(), err error) {
	spec.Files = []uintptr{0, 1, 2}
	var null *os.File
	release = func() { null.Close() } // a no-op for nil
	for i, descriptor := range spec.Files {
		if f := p.Streams[i]; f != nil {
			if _, err := fd.Raw(f); err != nil { // it is closed
				release()
				return nil, err
			}
			spec.Files[i] = f.Fd() // see spec
			continue
		}
		if fd.IsStream(descriptor) {
			continue
		}
		if null == nil {
			if null, err = os.Open(os.DevNull); err != nil {
				return nil, err
			}
		}
		if spec.Files[i], err = fd.Raw(null); err != nil {
			release()
			return nil, err
		}
	}
	return release, nil
}

// Explain makes the error of a start name the program's file, and not the
// descriptor by which it was started.
func Explain(err error, exe *binary.Binary) error {
	var at *os.PathError
	if exe != nil && errors.As(err, &at) && at.Op == "fork/exec" { // and not the directory
		at.Path = exe.Path()
	}
	return err
}
