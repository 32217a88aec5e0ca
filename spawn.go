package prefork

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/prefork-go/prefork/internal/inherit"
	"github.com/prefork-go/prefork/internal/pool"
	"github.com/prefork-go/prefork/internal/proc"
)

// handover is what Pass was given, for the generations that get it.
type handover struct {
	data []byte
	fd   int // -1 until the first worker needs it
}

func (h *handover) close() {
	if h != nil && h.fd >= 0 {
		inherit.CloseBlob(h.fd)
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
	sp := &Spawn{Slot: step.Spawn, Generation: m.generation, Ordinal: step.Ordinal}
	if m.cfg.BeforeSpawn != nil {
		m.cfg.BeforeSpawn(m, sp)
		sp.Slot, sp.Generation, sp.Ordinal = step.Spawn, m.generation, step.Ordinal
	}
	p, err := m.start(sp)
	if err != nil {
		failed := &SpawnError{Slot: sp.Slot, Generation: sp.Generation, Err: err}
		step := m.handle(pool.Event{Kind: pool.SpawnFailed})
		m.changed(SpawnFailedEvent{Err: failed, Retry: step.Retry})
		return
	}
	c := &child{
		WorkerInfo: WorkerInfo{Slot: sp.Slot, Generation: sp.Generation, Ordinal: sp.Ordinal, PID: p.Pid(), Started: time.Now()},
		proc:       p, spawned: m.now(),
	}
	if m.cfg.Command == nil {
		c.unread = []byte{}
	}
	m.mu.Lock()
	m.children[c.Ordinal] = c
	m.mu.Unlock()
	m.handle(pool.Event{Kind: pool.Spawned, Ready: m.cfg.Command != nil})
	if m.cfg.AfterSpawn != nil {
		m.cfg.AfterSpawn(m, c.PID)
	}
}

// start makes the process of a worker. It gets the standard streams of this process, as far as there are any.
func (m *Manager) start(sp *Spawn) (proc.Process, error) {
	spec := proc.Spec{Path: m.exe, Args: self.args, Attr: sp.Attr, Files: []uintptr{0, 1, 2}}
	for i, fd := range spec.Files {
		if inherit.IsStream(fd) {
			continue
		}
		null, err := os.Open(os.DevNull)
		if err != nil {
			return nil, err
		}
		defer null.Close()
		if spec.Files[i], err = rawFD(null); err != nil {
			return nil, err
		}
	}
	for _, f := range sp.Files {
		fd, err := rawFD(f)
		if err != nil {
			return nil, err
		}
		spec.Files = append(spec.Files, fd)
	}
	defer runtime.KeepAlive(sp.Files)
	depth := inherit.DepthEnv + "=" + strconv.Itoa(m.depth+1)
	if m.cfg.Command != nil {
		path, err := exec.LookPath(m.cfg.Command[0])
		if err != nil {
			return nil, err
		}
		spec.Path, spec.Args, spec.DieWithParent = path, m.cfg.Command, true
		env := m.handToCommand(sp, &spec)
		own := []string{depth}
		if m.cfg.ListenFDs {
			own = append(own, inherit.CommandEnv+"="+strconv.Itoa(os.Getpid())+":"+path)
			spec.Path = m.exe
		}
		spec.Env = inherit.Alter(os.Environ(), append(env, sp.Env...), own...)
		return m.procs.Start(uint64(sp.Ordinal), spec)
	}
	marker, err := m.hand(sp, &spec)
	if err != nil {
		return nil, err
	}
	spec.Env = inherit.Alter(os.Environ(), sp.Env, depth, inherit.Env+"="+marker.String())
	return m.procs.Start(uint64(sp.Ordinal), spec)
}

// hand lays out the descriptors of a worker, and writes down in its marker where they are.
func (m *Manager) hand(sp *Spawn, spec *proc.Spec) (inherit.Marker, error) {
	marker := inherit.Marker{
		Manager: os.Getpid(), Name: m.cfg.Name, Slot: sp.Slot, Generation: sp.Generation, Ordinal: sp.Ordinal,
		Stop: m.stop, Orphan: m.cfg.OrphanTimeout,
	}
	next := func(fd uintptr) int {
		spec.Files = append(spec.Files, fd)
		return len(spec.Files) - 1
	}
	spec.Control = next(0)
	marker.Control = spec.Control
	blob, err := m.current.file()
	if err != nil {
		return marker, err
	}
	if blob != 0 {
		marker.Passed = next(uintptr(blob))
	}
	for _, s := range m.allSockets() {
		marker.Sockets = append(marker.Sockets, inherit.Socket{FD: next(uintptr(s.fd)), Network: s.network, Address: s.address})
	}
	return marker, nil
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
