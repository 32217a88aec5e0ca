package prefork

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prefork-go/prefork/internal/inherit"
	"github.com/prefork-go/prefork/internal/pool"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/scoreboard"
)

// noSlot is the slot of a standby.
const noSlot = inherit.NoSlot

// generation is what the workers of one generation are started with.
type generation struct {
	passed *handover
	exe    *inherit.Binary // nil: the file that the manager runs
}

// forget lets go of the generations that are not spawned any more: all but the newest, and the one that goes on if that fails.
func (m *Manager) forget() {
	kept := []generation{m.generations[m.generation], m.generations[m.pool.Good()]}
	for n, g := range m.generations {
		if n == m.generation || n == m.pool.Good() {
			continue
		}
		delete(m.generations, n)
		if !slices.ContainsFunc(kept, func(k generation) bool { return k.passed == g.passed }) {
			g.passed.close()
		}
		if g.exe != nil && !slices.ContainsFunc(kept, func(k generation) bool { return k.exe == g.exe }) {
			g.exe.Close()
		}
	}
}

// handover is what Pass was given, for the generations that get it.
type handover struct {
	data []byte
	fd   int // -1 until the first worker needs it
}

func (h *handover) close() {
	if h != nil && h.fd >= 0 {
		inherit.Close(h.fd)
		h.fd = -1
	}
}

// file is the descriptor from which workers read; 0 where nothing was passed.
func (h *handover) file() (int, error) {
	if h == nil {
		return 0, nil
	}
	if h.fd < 0 {
		fd, err := inherit.NewBlob(h.data)
		if err != nil {
			return 0, err
		}
		h.fd = fd
	}
	return h.fd, nil
}

// Pass hands data to the workers of the generations that begin from now on, until it is called again: Worker.Passed
// returns it, also in a worker that is respawned an hour later. It may be of any size, and travels by descriptor, never
// in the environment. The data is copied. In a worker it does nothing. Any goroutine; it does not block.
func (m *Manager) Pass(data []byte) {
	if self.role == inherit.Worker {
		return
	}
	h := &handover{data: append(make([]byte, 0, len(data)), data...), fd: -1}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.passed = h
}

// spawn tries to start the worker that the policy asks for, and tells it how that went.
func (m *Manager) spawn(step pool.Step) {
	sp := &Spawn{Slot: step.Spawn, Generation: step.Gen, Ordinal: step.Ordinal}
	if m.cfg.BeforeSpawn != nil {
		m.flushLog()
		m.cfg.BeforeSpawn(m, sp)
		sp.Slot, sp.Generation, sp.Ordinal = step.Spawn, step.Gen, step.Ordinal
	}
	p, cell, err := m.start(sp)
	if err != nil {
		m.notSpawned = &SpawnError{Slot: sp.Slot, Generation: sp.Generation, Err: err}
		m.tellFailed(err.Error())
		step := m.handle(pool.Event{Kind: pool.SpawnFailed})
		m.changed(SpawnFailedEvent{Err: m.notSpawned, Retry: step.Retry})
		return
	}
	c := &child{
		WorkerInfo: WorkerInfo{Slot: sp.Slot, Generation: sp.Generation, Ordinal: sp.Ordinal, PID: p.Pid(), Started: time.Now()},
		proc:       p, spawned: m.now(), exe: m.generations[sp.Generation].exe,
		cell: cell, maxMemory: jittered(m.cfg.Recycle.MaxMemory),
	}
	if m.cfg.Command == nil {
		c.unread = []byte{}
	}
	m.mu.Lock()
	m.children[c.Ordinal] = c
	if c.Slot == noSlot {
		m.standbys++
	}
	m.mu.Unlock()
	m.handle(pool.Event{Kind: pool.Spawned, Ready: m.cfg.Command != nil})
	if m.cfg.AfterSpawn != nil {
		m.flushLog()
		m.cfg.AfterSpawn(m, c.PID)
	}
}

// start makes the process of a worker.
func (m *Manager) start(sp *Spawn) (p proc.Process, cell *scoreboard.Cell, err error) {
	spec := proc.Spec{Path: m.exe, Args: self.args, Attr: m.resources.Attr(sp.Attr, m.cfg.Command != nil), Group: m.cfg.StopGroup, SameGroup: m.cfg.SameGroup}
	release, err := addStreams(&spec)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	for _, f := range sp.Files {
		fd, err := rawFD(f)
		if err != nil {
			return nil, nil, err
		}
		spec.Files = append(spec.Files, fd)
	}
	defer runtime.KeepAlive(sp.Files)
	depth := inherit.DepthEnv + "=" + strconv.Itoa(m.depth+1)
	if m.cfg.Command != nil {
		path, err := exec.LookPath(m.cfg.Command[0])
		if err != nil {
			return nil, nil, err
		}
		spec.Path, spec.Args, spec.DieWithParent = path, m.cfg.Command, true
		env := m.handToCommand(sp, &spec)
		own := []string{depth}
		if m.cfg.ListenFDs {
			own = append(own, inherit.CommandEnv+"="+strconv.Itoa(os.Getpid())+":"+path)
			spec.Path = m.exe
		}
		spec.Env = inherit.Alter(os.Environ(), append(append(env, m.resources.Env()...), sp.Env...), own...)
		p, err = m.procs.Start(uint64(sp.Ordinal), spec)
		return p, nil, err
	}
	g := m.generations[sp.Generation]
	blob, err := g.passed.file()
	if err != nil {
		return nil, nil, err
	}
	marker := m.marker()
	marker.Slot, marker.Generation, marker.Ordinal = sp.Slot, sp.Generation, sp.Ordinal
	if err := m.grow(sp.Slot); err != nil {
		return nil, nil, err
	}
	cell, fd, err := newCell()
	if err != nil {
		return nil, nil, err
	}
	defer inherit.Close(fd)
	layCell(&spec, &marker, fd)
	marker.Resources = m.resources.Plan(sp.Slot)
	marker.Requests = int(jittered(int64(m.cfg.Recycle.MaxRequests)))
	layOut(&spec, &marker, blob, g.exe, m.handed(sp.Slot, false))
	spec.Env = inherit.Alter(os.Environ(), append(m.resources.Env(), sp.Env...), depth, inherit.Env+"="+marker.String())
	if p, err = m.procs.Start(uint64(sp.Ordinal), spec); err != nil {
		cell.Close()
		return nil, nil, named(err, g.exe)
	}
	return p, cell, nil
}

// named has an error speak of the file on disk, and not of the descriptor by which it was to be started.
func named(err error, exe *inherit.Binary) error {
	var at *os.PathError
	if exe != nil && errors.As(err, &at) {
		at.Path = exe.Path()
	}
	return err
}

// addStreams gives a process the standard streams of this one: the null device for those that there are not.
func addStreams(spec *proc.Spec) (release func(), err error) {
	spec.Files = []uintptr{0, 1, 2}
	var null *os.File
	release = func() { null.Close() } // of nil it does nothing
	for i, fd := range spec.Files {
		if inherit.IsStream(fd) {
			continue
		}
		if null == nil {
			if null, err = os.Open(os.DevNull); err != nil {
				return nil, err
			}
		}
		if spec.Files[i], err = rawFD(null); err != nil {
			release()
			return nil, err
		}
	}
	return release, nil
}

// marker is what all markers of this Manager say.
func (m *Manager) marker() inherit.Marker {
	return inherit.Marker{
		Manager: os.Getpid(), Name: m.cfg.Name, Generation: 1, Ordinal: 1, Stop: m.stop, Orphan: m.cfg.OrphanTimeout, Pause: m.pausing,
	}
}

// layOut lays out the descriptors of a process that runs this library, and writes down in its marker where they are: the
// control socket, what was passed to it (0 for nothing), the sockets (whose descriptors here become those there), and the
// file that it is started from (nil for that of this process).
func layOut(spec *proc.Spec, marker *inherit.Marker, blob int, exe *inherit.Binary, sockets []inherit.Socket) {
	next := func(fd int) int {
		spec.Files = append(spec.Files, uintptr(fd))
		return len(spec.Files) - 1
	}
	spec.Control = next(0)
	marker.Control = spec.Control
	if blob != 0 {
		marker.Passed = next(blob)
	}
	for _, s := range sockets {
		s.FD = next(s.FD)
		marker.Sockets = append(marker.Sockets, s)
	}
	if exe != nil {
		marker.Exe = next(exe.FD())
		spec.Path = exe.StartPath(marker.Exe)
	}
}

// handed are the sockets that the worker of a slot is handed. A standby is handed one for its address, in the place of each
// that it will get with its slot; a successor those of all slots.
func (m *Manager) handed(slot int, successor bool) (all []inherit.Socket) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.sockets {
		h := inherit.Socket{FD: s.fd, Network: s.network, Address: s.address, Slot: inherit.Shared, Own: s.file != nil || s.ownedBefore != ""}
		switch {
		case s.group == nil:
			if s.fellBack {
				h.Slot = inherit.FellBack
			}
			all = append(all, h)
		case slot == noSlot && !successor:
			h.Slot = inherit.Awaited
			all = append(all, h)
		default:
			for i, fd := range s.group.fds {
				if h.FD, h.Slot = fd, i; slot == i || successor {
					all = append(all, h)
				}
			}
		}
	}
	return all
}

// handToCommand gives a Command the sockets, by the variables that say where they are.
func (m *Manager) handToCommand(sp *Spawn, spec *proc.Spec) (env []string) {
	var ports []string
	for _, s := range m.allSockets() {
		ports = append(ports, s.name+"="+strconv.Itoa(len(spec.Files)))
		spec.Files = append(spec.Files, uintptr(s.fd))
	}
	env = []string{inherit.StarterEnv + "=" + strings.Join(ports, ";"), inherit.StarterGenerationEnv + "=" + strconv.Itoa(sp.Generation)}
	if m.cfg.ListenFDs {
		env = append(env, inherit.ListenFDsEnv+"="+strconv.Itoa(len(spec.Files)-3)) // it counts from 3, Spawn.Files too
	}
	return env
}

// rawFD is the number of a file's descriptor. File.Fd would put the file into blocking mode, for all who share it.
func rawFD(f *os.File) (fd uintptr, err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	err = conn.Control(func(raw uintptr) { fd = raw })
	return fd, err
}
